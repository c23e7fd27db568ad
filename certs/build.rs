//! Builds a vendor's pinned roots into the binary: copies `certs/pinned-ca.pem`, if there is one, to where `pki::pin` includes it,
//! and stops the build if it is anything but certificates in PEM.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    // The directory rather than the file: a file that is missing would count as changed on every build.
    println!("cargo::rerun-if-changed=certs");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let source = root.join("certs/pinned-ca.pem");
    let pem = if source.exists() { checked(&source) } else { String::new() };
    fs::write(out.join("pinned-ca.pem"), pem).expect("OUT_DIR is writable");
}

/// The file's text, once it is known to hold certificates and nothing else.
fn checked(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| refuse(path, &error.to_string()));
    let mut inside: Option<String> = None;
    let mut certificates = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match (line, inside.take()) {
            ("-----BEGIN CERTIFICATE-----", None) => inside = Some(String::new()),
            ("-----END CERTIFICATE-----", Some(body)) if is_der_sequence(&body) => certificates += 1,
            ("-----END CERTIFICATE-----", Some(_)) => refuse(path, "a certificate is not Base64 of DER"),
            (body_line, Some(body)) if !body_line.starts_with('-') => inside = Some(body + body_line),
            (comment, None) if comment.starts_with('#') => {}
            (other, _) => refuse(path, &format!("`{other}` has no place in it: only CERTIFICATE blocks and # comments do")),
        }
    }
    if inside.is_some() || certificates == 0 {
        refuse(path, "it holds no complete certificate");
    }
    text
}

/// Whether the text is Base64 of exactly one DER SEQUENCE.
fn is_der_sequence(base64: &str) -> bool {
    let Some(bytes) = decode(base64) else { return false };
    let (header, length) = match bytes.get(..4) {
        Some(&[0x30, length @ ..=0x7f, ..]) => (2, usize::from(length)),
        Some(&[0x30, 0x81, length, _]) => (3, usize::from(length)),
        Some(&[0x30, 0x82, high, low]) => (4, usize::from(high) << 8 | usize::from(low)),
        _ => return false,
    };
    bytes.len() == header + length
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    let digits = base64.trim_end_matches('=');
    if !base64.len().is_multiple_of(4) || base64.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("one byte"));
        }
    }
    Some(bytes)
}

fn refuse(path: &Path, why: &str) -> ! {
    println!("cargo::error={}: {why}", path.display());
    std::process::exit(1)
}
