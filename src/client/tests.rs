//! Clients against a gateway that keeps to no rule, over real TLS.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{Gateway, Told, client, listening, made, tcp_pair};
use super::*;
use crate::base::limits::CLIENT_HEAD;
use crate::wire::connect;

/// What a client ends with that the gateway answers so.
async fn answered(answer: &[u8]) -> Failure {
    let gateway = Gateway::new().await;
    let (client, told) = gateway.client();
    let serve = async {
        let (mut stream, _) = gateway.asked().await;
        // It may have had enough before the end.
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    };
    let (opened, ()) = tokio::join!(client.open(), serve);
    assert!(told.take().is_empty(), "what is no matter of the way is told once, by the failure");
    let failure = opened.err().expect("no stream");
    assert!(!failure.detail.contains(&client.token.expose()[30..60]), "{failure}");
    failure
}

/// A stream of which one end is a socket of this test, the other the gateway's.
async fn joined(gateway: &Gateway) -> (TcpStream, fixture::Asked, crate::base::tasks::Tasks) {
    let (client, _) = gateway.client();
    let local = listening(&client, &[]);
    let (near, far) = tokio::join!(TcpStream::connect(local.at), gateway.accept());
    (near.unwrap(), far, local.tasks)
}

#[tokio::test]
async fn a_stream_is_asked_for_by_name_and_token_and_begins_with_what_came_behind_the_answer() {
    let gateway = Gateway::new().await;
    let (client, _) = gateway.client();
    let serve = async {
        let (mut stream, request) = gateway.asked().await;
        stream.write_all(&[connect::accepted(), b"SSH-2.0-there\r\n"].concat()).await.unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        (request, heard, stream.get_ref().1.alpn_protocol().unwrap().to_vec())
    };
    let (near, mut far) = tcp_pair().await;
    let ask = async {
        let opened = client.open().await.unwrap();
        let mut local = near;
        let mut end = Socket::new(&mut local);
        let (carried, ()) = tokio::join!(carry(&mut end, opened), async {
            let mut said = [0; 15];
            far.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"SSH-2.0-there\r\n");
            far.write_all(b"here").await.unwrap();
        });
        carried
    };
    let (carried, (request, heard, alpn)) = tokio::join!(ask, serve);
    assert!(carried.is_err(), "the gateway dropped it");
    assert_eq!((&heard, alpn.as_slice()), (b"here", tls::ALPN_CLIENT));
    let (head, _) = connect::parse(request.as_bytes()).unwrap().unwrap();
    assert_eq!(head.target, client.target);
    assert_eq!(head.login.unwrap().expose(), client.token.expose());
}

#[tokio::test]
async fn a_refusal_is_final_and_keeps_its_code() {
    for code in [Code::NotGranted, Code::LoginFailed, Code::LoginLimited, Code::TargetRefused, Code::NoAgent, Code::SessionLost]
    {
        let gateway = Gateway::new().await;
        let (client, told) = gateway.client();
        let (opened, ()) = tokio::join!(client.open(), gateway.refuse(code));
        let failure = opened.err().unwrap();
        assert_eq!((failure.code, failure.detail.as_str()), (code, format!("{}: as the test says", client.target).as_str()));
        assert!(told.take().is_empty());
    }
}

#[tokio::test]
async fn what_is_no_answer_is_a_violation_and_not_asked_again() {
    for answer in [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n".as_slice(),
        b"HTTP/1.1 500 Oops\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere\r\n\r\n",
        b"HTTP/1.1 403 No\r\nUnderpass-Refusal: not_granted\r\nContent-Length: 99999999999\r\n\r\n",
        b"\0\xff\0\xff",
    ] {
        assert_eq!(answered(answer).await.code, Code::ProtocolViolation, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn e12_an_answer_without_end_is_cut_off() {
    let gateway = Gateway::new().await;
    let (client, _) = gateway.client();
    let serve = async {
        let (mut stream, _) = gateway.asked().await;
        let (mut sent, line) = (0, format!("X: {}\r\n", "a".repeat(1000)));
        let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n").await;
        while sent < 1 << 30 && stream.write_all(line.as_bytes()).await.is_ok() {
            sent += line.len();
        }
        sent
    };
    let ask = async { client.open().await.err().unwrap() };
    let (failure, sent) = tokio::join!(ask, serve);
    assert_eq!(failure.code, Code::ProtocolViolation);
    assert!(failure.detail.contains(&CLIENT_HEAD.to_string()), "{failure}");
    assert!(sent < 64 << 20, "{sent} bytes were taken, or lie in the kernel");
}

#[tokio::test]
async fn a_gateway_that_closes_early_or_stops_is_asked_again_and_waited_for_in_one_line() {
    let gateway = Gateway::new().await;
    let (client, told) = gateway.client();
    let serve = async {
        gateway.drop_one().await;
        drop(gateway.asked().await);
        gateway.refuse(Code::Stopping).await;
        gateway.refuse(Code::NoAgent).await;
        gateway.accept().await
    };
    let (opened, _far) = tokio::join!(client.open(), serve);
    assert!(opened.is_ok());
    assert_eq!(told.take(), ["waiting tls_failed"]);
}

#[tokio::test]
async fn s4_another_root_is_interception_whatever_its_name_and_no_token_goes_there() {
    let (ours, theirs) = (Gateway::new().await, Gateway::new().await);
    let (client, told) = client(ours.token(&[]), vec![theirs.endpoint.clone()]);
    let asked = tokio::select! {
        biased;
        failure = client.open() => failure.err().unwrap(),
        _ = theirs.asked() => panic!("the token was shown"),
    };
    assert_eq!(asked.code, Code::TlsIntercepted);
    assert!(told.take().is_empty(), "nothing to wait for");
}

#[tokio::test]
async fn the_next_endpoint_is_tried_and_an_argument_replaces_those_of_the_token() {
    let (gateway, dead) = (Gateway::new().await, "wss://127.0.0.1:1".parse::<Endpoint>().unwrap());
    let both = [dead.clone(), gateway.endpoint.clone()];
    for (token, argument) in
        [(gateway.token(&both), vec![]), (gateway.token(&[dead]), both[1..].to_vec()), (gateway.token(&[]), both[1..].to_vec())]
    {
        let (client, told) = client(token, argument);
        let (opened, _far) = tokio::join!(client.open(), gateway.accept());
        assert!(opened.is_ok() && told.take().is_empty());
    }
}

#[tokio::test]
async fn without_an_endpoint_or_a_whole_token_there_is_no_client() {
    let gateway = Gateway::new().await;
    let refused = |token: Secret| made(token, Vec::new(), &Told::default()).err().unwrap();
    let nowhere = refused(gateway.token(&[]));
    assert_eq!(nowhere.code, Code::Usage);
    assert!(nowhere.detail.contains("--endpoint wss://HOST:PORT"), "{nowhere}");
    let token = gateway.token(&[]);
    let damaged = refused(Secret::new(&token.expose()[..100]));
    assert_eq!(damaged.code, Code::TokenInvalid);
    assert!(!damaged.detail.contains(&token.expose()[30..60]), "i1: {damaged}");
}

#[tokio::test]
async fn f20_a_client_may_end_first_and_still_read() {
    let gateway = Gateway::new().await;
    let (mut near, mut far, _tasks) = joined(&gateway).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    heard.clear();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"answer");
}

#[tokio::test]
async fn f20_a_target_may_end_first_and_still_read() {
    let gateway = Gateway::new().await;
    let (mut near, mut far, _tasks) = joined(&gateway).await;
    far.write_all(b"greeting").await.unwrap();
    far.shutdown().await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"greeting");
    near.write_all(b"upload").await.unwrap();
    near.shutdown().await.unwrap();
    heard.clear();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"upload");
}

#[tokio::test]
async fn a_stream_that_is_cut_is_reset_at_the_other_end_either_way() {
    let gateway = Gateway::new().await;
    let (mut near, mut far, _tasks) = joined(&gateway).await;
    far.write_all(b"half of it").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut [0; 10]).await.unwrap();
    drop(far);
    assert_eq!(near.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset, "no end of file");

    let (near, mut far, _tasks) = joined(&gateway).await;
    crate::tunnel::listen::reset_on_close(&near, true);
    drop(near);
    assert_eq!(far.read_u8().await.unwrap_err().kind(), ErrorKind::UnexpectedEof, "TLS was not ended");
}

#[tokio::test]
async fn a_local_connection_without_a_stream_is_reset_and_told_of_and_the_next_is_served() {
    let gateway = Gateway::new().await;
    let (client, told) = gateway.client();
    let local = listening(&client, &[]);
    let (refused, ()) = tokio::join!(TcpStream::connect(local.at), gateway.refuse(Code::NotGranted));
    let mut refused = refused.unwrap();
    assert_eq!(refused.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(told.take(), ["failed not_granted"]);
    let (mut served, mut far) = tokio::join!(async { TcpStream::connect(local.at).await.unwrap() }, gateway.accept());
    served.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_listener_off_loopback_says_who_may_connect_and_nobody_else_may() {
    let any = "0.0.0.0:0".parse().unwrap();
    assert_eq!(listener::bind(any, &[]).unwrap_err().code, Code::ListenerOpen);
    assert_eq!(listener::bind("[::ffff:10.0.0.1]:0".parse().unwrap(), &[]).unwrap_err().code, Code::ListenerOpen);
    listener::bind(any, &["10.0.0.0/8".parse().unwrap()]).unwrap();

    let gateway = Gateway::new().await;
    let (client, told) = gateway.client();
    let local = listening(&client, &["192.0.2.0/24"]);
    let mut denied = TcpStream::connect(local.at).await.unwrap();
    assert!(denied.read_u8().await.is_err());
    assert_eq!(told.take(), ["failed denied_source_ip"]);
}

#[tokio::test]
async fn a_drain_stops_accepting_and_open_streams_live_on() {
    let gateway = Gateway::new().await;
    let (client, _) = gateway.client();
    let local = listening(&client, &[]);
    let (near, mut far) = tokio::join!(TcpStream::connect(local.at), gateway.accept());
    let mut near = near.unwrap();
    local.drain.begin();
    far.write_all(b"still here").await.unwrap();
    far.shutdown().await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"still here");
    drop(near);
    local.tasks.join().await;
    assert_eq!(TcpStream::connect(local.at).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_connection_to_the_gateway_outlives_a_reader_that_rests() {
    let gateway = Gateway::new().await;
    let (client, _) = gateway.client();
    let (opened, _far) = tokio::join!(client.open(), gateway.accept());
    let opened = opened.unwrap_or_else(|failure| panic!("{failure}"));
    let socket = opened.stream.get_ref().get_ref().0.get_ref().get_ref();
    let limit = socket2::SockRef::from(socket).tcp_user_timeout().unwrap();
    assert_eq!(limit, None, "a closed window counts as acknowledging nothing");
}
