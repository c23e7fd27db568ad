//! The slow line itself: carries packets between two TUN devices, each way with a rate, a bounded queue that drops what comes
//! when it is full, and a delay. It refuses to know what is in a packet.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::wan::{FAR_DEVICE, Line, NEAR_DEVICE};

/// Packets are taken up and let go at most this often, which spares most wake-ups. It adds half of itself to the delay.
const TICK: Duration = Duration::from_micros(200);

/// Packets taken up at a time.
const BATCH: usize = 128;

/// So that a saturated machine doesn't lengthen the line.
const NICE: i32 = -15;

/// Makes the two devices in this namespace, says so on standard output, and carries packets for ever.
///
/// # Errors
/// When the devices can't be made.
pub(crate) fn run(line: Line) -> Result<()> {
    let (near, far) = (device(NEAR_DEVICE)?, device(FAR_DEVICE)?);
    println!("ready");
    io::stdout().flush()?;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| Direction::new(&near, &far, line).run());
        Direction::new(&far, &near, line).run()?;
        up.join().map_err(|_| io::Error::other("the other direction panicked"))?
    })
    .context("carrying packets")
}

fn device(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).enable(false).build_sync();
    let device = device.with_context(|| format!("making the TUN device {name}"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// One way of the line.
struct Direction<'a> {
    from: &'a SyncDevice,
    to: &'a SyncDevice,
    queue: Queue,
    /// The packet just taken up.
    packet: Vec<u8>,
    /// Packets on their way, by when they arrive.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// Buffers of packets that have arrived.
    spare: Vec<Vec<u8>>,
}

impl<'a> Direction<'a> {
    fn new(from: &'a SyncDevice, to: &'a SyncDevice, line: Line) -> Self {
        let (queue, packet) = (Queue::new(line, Instant::now()), vec![0; line.mtu.into()]);
        Self { from, to, queue, packet, under_way: VecDeque::new(), spare: Vec::new() }
    }

    fn run(mut self) -> io::Result<()> {
        // Without the privilege, figures on a saturated machine are worse.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        loop {
            self.take_up()?;
            self.let_go();
            self.wait()?;
        }
    }

    fn take_up(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            let bytes = match self.from.recv(&mut self.packet) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if let Some(arrives) = self.queue.take(bytes, Instant::now()) {
                let mut packet = self.spare.pop().unwrap_or_default();
                packet.clear();
                packet.extend_from_slice(&self.packet[..bytes]);
                self.under_way.push_back((arrives, packet));
            }
        }
        Ok(())
    }

    fn let_go(&mut self) {
        let now = Instant::now();
        while let Some((_, packet)) = self.under_way.pop_front_if(|(arrives, _)| *arrives <= now) {
            // A device that is being taken away takes no packets; its end is the line's.
            let _ = self.to.send(&packet);
            self.spare.push(packet);
        }
    }

    fn wait(&self) -> io::Result<()> {
        let Some((next, _)) = self.under_way.front() else {
            poll(&mut [PollFd::new(self.from, PollFlags::IN)], None)?;
            return Ok(());
        };
        let time = next.saturating_duration_since(Instant::now()).min(TICK).max(TICK / 4);
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        poll(&mut [], Some(&time))?;
        Ok(())
    }
}

/// The queue in front of the line, reckoned in time: bytes that wait are time that the line will need for them.
struct Queue {
    line: Line,
    /// When the last packet will have been put onto the line.
    free: Instant,
}

impl Queue {
    fn new(line: Line, now: Instant) -> Self {
        Self { line, free: now }
    }

    /// When a packet arrives at the other end: it waits for those before it, takes its time to be put onto the line, and then
    /// the line's delay. None when there is no room for it.
    fn take(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let starts = self.free.max(now);
        if starts - now > self.line.longest_wait() {
            return None;
        }
        self.free = starts + self.line.takes(bytes);
        Some(self.free + self.line.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { rtt_ms: 80, mbit: 100, mtu: 1_500, large_buffers: false };

    #[test]
    fn packets_leave_at_the_line_rate_and_arrive_after_half_a_round_trip() {
        let now = Instant::now();
        let mut queue = Queue::new(LINE, now);
        let one = Duration::from_micros(120);
        let delay = Duration::from_millis(40);
        assert_eq!(queue.take(1_500, now), Some(now + one + delay));
        assert_eq!(queue.take(1_500, now), Some(now + 2 * one + delay));
        let later = now + Duration::from_secs(1);
        assert_eq!(queue.take(1_500, later), Some(later + one + delay), "an idle line saves nothing up");
    }

    #[test]
    fn what_exceeds_a_round_trip_of_queue_is_dropped() {
        let now = Instant::now();
        let mut queue = Queue::new(LINE, now);
        let fit = (0..2_000).take_while(|_| queue.take(1_500, now).is_some()).count();
        // 1 MB, the bandwidth-delay product, and the packet that is being put onto the line.
        assert_eq!(fit * 1_500, 1_000_500);
    }
}
