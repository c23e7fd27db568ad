//! The heads of HTTP/1.1 messages as far as the load generator needs them. Refuses to know who sends them.

use anyhow::{Result, bail, ensure};

/// More headers than any peer adds.
const HEADERS: usize = 64;

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The small answer.
    Small,
    /// An answer of so many bytes.
    Download(u64),
    /// That so many bytes are swallowed.
    Upload(u64),
}

impl Asked {
    /// The request at the start of a buffer, and how long its head is; none until the head is whole.
    ///
    /// # Errors
    /// When it is no request that this load generator makes.
    pub(crate) fn parse(buffer: &[u8]) -> Result<Option<(Self, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(head) = request.parse(buffer)? else { return Ok(None) };
        let path = request.path.unwrap_or_default();
        let asked = match request.method {
            Some("PUT") => Self::Upload(length(request.headers)?),
            Some("GET") => match path.rsplit_once("/bytes/") {
                Some((_, bytes)) => Self::Download(bytes.parse()?),
                None => Self::Small,
            },
            other => bail!("{other:?} is not asked for here"),
        };
        Ok(Some((asked, head)))
    }
}

/// An answer's length: of its head, and of its body.
pub(crate) struct Answered {
    pub(crate) head: usize,
    pub(crate) body: u64,
}

impl Answered {
    /// The answer at the start of a buffer; none until its head is whole.
    ///
    /// # Errors
    /// When it is another than 200, with what it says.
    pub(crate) fn parse(buffer: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(buffer)? else { return Ok(None) };
        ensure!(response.code == Some(200), "the answer is {}", String::from_utf8_lossy(buffer).trim());
        Ok(Some(Self { head, body: length(response.headers)? }))
    }

    /// Of head and body.
    pub(crate) fn whole(&self) -> u64 {
        self.head as u64 + self.body
    }
}

fn length(headers: &[httparse::Header<'_>]) -> Result<u64> {
    let Some(header) = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length")) else {
        bail!("a body without a length");
    };
    Ok(std::str::from_utf8(header.value)?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Option<(Asked, usize)> {
        Asked::parse(text.as_bytes()).expect("a request of ours")
    }

    #[test]
    fn requests_are_told_apart_below_any_path() {
        assert_eq!(asked("GET /t/acme/dc1/load/small HTTP/1.1\r\nHost: a\r\n"), None);
        assert_eq!(asked("GET /small HTTP/1.1\r\nHost: a\r\n\r\n"), Some((Asked::Small, 32)));
        assert_eq!(asked("GET /t/bytes/17 HTTP/1.1\r\n\r\n"), Some((Asked::Download(17), 28)));
        assert_eq!(asked("PUT /sink HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\nhello"), Some((Asked::Upload(5), 41)));
        assert!(Asked::parse(b"PUT /sink HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn an_answer_other_than_200_is_an_error_that_quotes_it() {
        let whole = Answered::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an answer").expect("a head");
        assert_eq!(whole.whole(), 40);
        let refused = Answered::parse(b"HTTP/1.1 403 Forbidden\r\nUnderpass-Refusal: not_allowed\r\n\r\n").err();
        assert!(refused.expect("an error").to_string().contains("not_allowed"));
    }
}
