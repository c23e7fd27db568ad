//! Messages: what is copied, what is not, and what stands before.

use super::*;
use crate::tunnel::mux::frame::{Flags, Kind};

fn data(length: usize) -> (Header, Bytes) {
    let header = Header::new(Kind::Data, Flags::default(), 1, u32::try_from(length).unwrap());
    (header, Bytes::from(vec![7; length]))
}

fn parts(batch: Batch, head: &[u8]) -> Vec<Bytes> {
    let mut parts = Vec::new();
    batch.finish(head, &mut parts, |_| {});
    parts
}

#[test]
fn frames_of_small_bodies_are_one_slice_behind_their_head() {
    let mut batch = Batch::new(14, 65_528);
    for length in [0, 1, SMALL] {
        let (header, body) = data(length);
        batch.push(header, body);
    }
    assert_eq!(batch.len(), 3 * HEADER + 1 + SMALL);
    let parts = parts(batch, b"head");
    assert_eq!(parts.len(), 1);
    let wanted: Vec<u8> = [0, 1, SMALL].map(|length| [&data(length).0.encode()[..], &data(length).1].concat()).concat();
    assert_eq!(parts[0], [&b"head"[..], &wanted].concat());
}

#[test]
fn large_bodies_are_not_copied() {
    let mut batch = Batch::new(14, 65_528);
    let (header, body) = data(SMALL + 1);
    batch.push(header, body.clone());
    let (small, crumb) = data(3);
    batch.push(small, crumb);
    let parts = parts(batch, b"");
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[0][..], header.encode());
    assert_eq!(parts[1].as_ptr(), body.as_ptr());
    assert_eq!(parts[2][..], [&small.encode()[..], &[7; 3]].concat());
}

#[test]
fn a_batch_says_how_large_a_body_may_still_be() {
    let mut batch = Batch::new(0, 2 * HEADER + 5);
    assert_eq!((batch.room(), batch.is_empty()), (Some(HEADER + 5), true));
    let (header, body) = data(5);
    batch.push(header, body);
    assert_eq!((batch.room(), batch.is_empty()), (Some(0), false));
    let (header, body) = data(0);
    batch.push(header, body);
    assert_eq!((batch.room(), batch.len()), (None, 2 * HEADER + 5));
}
