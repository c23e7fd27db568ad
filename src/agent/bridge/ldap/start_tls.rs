//! StartTLS (RFC 4511, 4.14), before anything else is said to a directory: asked, and the answer read so strictly that nobody in between can
//! put words into what follows. It refuses to know TLS.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::base::limits::LDAP_START_TLS;
use crate::ldap::ber::{Malformed, tag, take_message};
use crate::ldap::message::answer::{self, START_TLS};
use crate::ldap::message::response::Response;
use crate::ldap::message::{Message, Operation};

const ID: u32 = 1;

/// Asks for TLS; once it is done, the next byte either way is of TLS.
///
/// # Errors
/// `target_tls_failed`: the directory has no StartTLS, or something else came than its one answer.
pub(super) async fn start_tls<Io: AsyncRead + AsyncWrite + Unpin>(io: &mut Io) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(Code::TargetTlsFailed, format_args!("StartTLS: {why}"));
    let ask = answer::message(ID, &[], |it| {
        it.constructed(0x77, |it| it.octets(tag::context(0), START_TLS.as_bytes()));
    });
    io.write_all(&ask).await.map_err(|error| failed(&error))?;
    io.flush().await.map_err(|error| failed(&error))?;
    let mut buffer = BytesMut::with_capacity(LDAP_START_TLS);
    loop {
        if let Some(message) = take_message(&mut buffer, LDAP_START_TLS).map_err(|why| failed(&why))? {
            // What lies here already was not said under TLS, and must not be taken for what was.
            if !buffer.is_empty() {
                return Err(failed(&"something came behind the answer, before TLS"));
            }
            return agreed(&message).map_err(|why| failed(&why));
        }
        if io.read_buf(&mut buffer).await.map_err(|error| failed(&error))? == 0 {
            return Err(failed(&"the directory closed the connection instead of answering"));
        }
    }
}

fn agreed(message: &[u8]) -> Result<(), Malformed> {
    let message = Message::parse(message)?;
    let Response::Done(Operation::Extended, done) = Response::read(&message)? else {
        return Err(Malformed::new("something else was answered"));
    };
    if message.id != ID || done.oid.is_some_and(|oid| oid != START_TLS) {
        return Err(Malformed::new("something else was answered"));
    }
    match done.code {
        0 => Ok(()),
        code => Err(Malformed(format!("refused with result {code}: {}", printable(done.diagnostic, 128)).into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldap::message::answer::ResultCode;

    /// What comes of these answers, said at once.
    async fn answered(said: &[u8]) -> Result<(), Failure> {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        start_tls(&mut near).await
    }

    fn success() -> Vec<u8> {
        answer::done(ID, Operation::Extended, ResultCode::Success, "")
    }

    #[tokio::test]
    async fn e7_only_the_one_right_answer_begins_tls() {
        assert_eq!(answered(&success()).await, Ok(()));
        let why = |said: Vec<u8>| async move {
            let failure = answered(&said).await.unwrap_err();
            assert_eq!(failure.code, Code::TargetTlsFailed);
            failure.detail
        };
        let refused = answer::done(ID, Operation::Extended, ResultCode::Unavailable, "no TLS here");
        assert!(why(refused).await.contains("result 52: no TLS here"));
        let injected = [success(), answer::done(2, Operation::Bind, ResultCode::Success, "")].concat();
        assert!(why(injected).await.contains("behind the answer"));
        assert!(why([&success()[..], b"\x16\x03"].concat()).await.contains("behind the answer"));
        for other in [
            answer::done(ID + 1, Operation::Extended, ResultCode::Success, ""),
            answer::done(ID, Operation::Bind, ResultCode::Success, ""),
            answer::notice_of_disconnection(ResultCode::Unavailable, ""),
            vec![],
            b"HTTP/1.1 200 OK".to_vec(),
            vec![0x30, 0x84, 0, 1, 0, 0],
            success()[..5].to_vec(),
        ] {
            why(other).await;
        }
    }

    #[tokio::test]
    async fn what_is_asked_is_start_tls_and_nothing_more() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(&success()).await.unwrap();
        start_tls(&mut near).await.unwrap();
        drop(near);
        let mut asked = Vec::new();
        far.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037");
    }
}
