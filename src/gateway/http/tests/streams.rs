//! Which stream a request goes by, and what becomes of streams and requests when either end is gone.

use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio_util::sync::CancellationToken;

use super::*;

async fn by(site: &mut Site, sender: &mut http1::SendRequest<Said>, path: &str, bearer: &str) -> usize {
    sender.ready().await.unwrap();
    assert_eq!(whole(sender.send_request(get(path, Some(bearer))).await.unwrap()).await.0, 200);
    site.asked.recv().await.unwrap().0
}

#[tokio::test]
async fn e7_a_stream_is_of_one_caller_and_one_target_and_is_used_again_by_nobody_else() {
    let mut site = Site::new(hello).await;
    let (mut one, mut other) = (site.http1().await, site.http1().await);
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/erp/a", CI).await, 0);
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/erp/b", CI).await, 0);
    assert_eq!(by(&mut site, &mut other, "/t/acme/dc1/erp/c", CI).await, 0, "another connection of the same caller");
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/erp/d", OPS).await, 1, "another caller on the same connection");
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/crm/e", CI).await, 2, "another target");
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/erp/f", CI).await, 0);
    assert_eq!(site.rows(9).await.iter().filter(|row| *row == "request").count(), 6);

    site.gateway.callers.publish(vec![token("underpass-client-1.ci", "ci", Limits::default())]);
    assert_eq!(site.rows(1).await, ["closed caller_revoked"]);
}

#[tokio::test]
async fn e7_a_stream_on_which_a_connection_has_logged_in_is_that_clients_alone() {
    let mut site = Site::new(hello).await;
    let (mut one, mut other) = (site.http1().await, site.http1().await);
    let ntlm = || {
        let mut request = ask("GET", "/t/acme/dc1/erp/a", None, text(""));
        // The gateway's own login stands beside the target's.
        request.headers_mut().insert("proxy-authorization", CI.parse().unwrap());
        request.headers_mut().insert("authorization", "NTLM TlRMTVNTUAAB".parse().unwrap());
        request
    };
    whole(one.send_request(ntlm()).await.unwrap()).await;
    assert_eq!(site.asked.recv().await.unwrap().0, 0);
    assert_eq!(by(&mut site, &mut other, "/t/acme/dc1/erp/b", CI).await, 1, "not as whoever logged in");
    assert_eq!(by(&mut site, &mut one, "/t/acme/dc1/erp/c", CI).await, 0, "still as itself");
    assert_eq!(by(&mut site, &mut other, "/t/acme/dc1/erp/d", CI).await, 1);
}

#[tokio::test]
async fn many_requests_of_http2_share_a_stream() {
    let mut site = Site::new(hello).await;
    let sender = site.http2().await;
    let asks = (0..100).map(|number| {
        let uri = format!("https://gw.example/t/acme/dc1/erp/{number}");
        let request = Request::builder().uri(uri).header("authorization", CI).body(text("")).unwrap();
        let mut sender = sender.clone();
        async move { whole(sender.send_request(request).await.unwrap()).await.0 }
    });
    assert!(join_all(asks).await.iter().all(|status| *status == 200));
    for _ in 0..100 {
        assert_eq!(site.asked.recv().await.unwrap().0, 0);
    }
}

/// Answers, and closes the stream with a FIN after the answer.
fn once(_: Request<Incoming>) -> Answering {
    Box::pin(async { Response::builder().header("connection", "close").body(text("once")).unwrap() })
}

#[tokio::test]
async fn a_stream_that_its_agent_closed_is_replaced() {
    let mut site = Site::new(once).await;
    let mut client = site.http1().await;
    for number in 0..3 {
        assert_eq!(by(&mut site, &mut client, "/t/acme/dc1/erp/", CI).await, number);
    }
}

static BREAKS: AtomicUsize = AtomicUsize::new(0);

/// Answers the first request of a test, and breaks off without an answer from then on, one time.
fn breaks(_: Request<Incoming>) -> Answering {
    Box::pin(async {
        if BREAKS.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
            panic!("the stream breaks off");
        }
        Response::new(text("fine"))
    })
}

#[tokio::test]
async fn e10_what_may_have_been_done_is_not_done_twice() {
    let mut site = Site::new(breaks).await;
    let mut client = site.http1().await;
    let get = |number| get(["/t/acme/dc1/erp/1", "/t/acme/dc1/erp/2", "/t/acme/dc1/erp/3"][number], Some(CI));
    assert_eq!(whole(client.send_request(get(0)).await.unwrap()).await.0, 200);
    // Broken off on the stream that was there, and done again on another.
    assert_eq!(whole(client.send_request(get(1)).await.unwrap()).await.0, 200);
    let paths: Vec<_> =
        [site.asked.recv().await, site.asked.recv().await, site.asked.recv().await].into_iter().flatten().collect();
    assert_eq!(
        paths.iter().map(|(stream, parts)| (*stream, parts.uri.path())).collect::<Vec<_>>(),
        [(0, "/1"), (0, "/2"), (1, "/2")]
    );

    assert_eq!(whole(client.send_request(get(0)).await.unwrap()).await.0, 200);
    let post = ask("POST", "/t/acme/dc1/erp/pay", Some(CI), text("100"));
    let response = client.send_request(post).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["underpass-refusal"].to_str().unwrap()),
        (502, "outcome_unknown")
    );
    site.asked.recv().await.unwrap();
    assert_eq!(site.asked.recv().await.unwrap().1.uri.path(), "/pay");
    assert!(site.asked.try_recv().is_err());
    let rows = site.rows.take();
    assert!(rows.contains(&"request outcome_unknown".to_owned()), "{rows:?}");
}

/// An answer that begins and does not end.
fn endless(_: Request<Incoming>) -> Answering {
    Box::pin(async {
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))]);
        let body = StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending()));
        Response::builder().header("content-type", "text/event-stream").body(BodyExt::boxed(body)).unwrap()
    })
}

#[tokio::test]
async fn i5_f27_a_revoked_caller_is_cut_in_the_middle_of_an_answer() {
    let mut site = Site::new(endless).await;
    let response = site.http1().await.send_request(get("/t/acme/dc1/erp/events", Some(CI))).await.unwrap();
    let mut events = response.into_body();
    let first = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: 1\n\n", "an event is there before the next");
    site.gateway.callers.publish(Vec::new());
    assert!(events.frame().await.unwrap().is_err());
    let mut rows = site.rows(3).await;
    rows.sort();
    assert_eq!(rows, ["closed caller_revoked", "opened", "request stream_cut"]);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_and_the_stream_with_it() {
    let mut site = Site::new(endless).await;
    let response = site.http1().await.send_request(get("/t/acme/dc1/erp/events", Some(CI))).await.unwrap();
    drop(response);
    let mut rows = site.rows(3).await;
    rows.sort();
    assert!(rows[0].starts_with("closed") && rows[1..] == ["opened", "request client_reset"], "{rows:?}");
}

#[tokio::test]
async fn idle_streams_give_way_when_their_callers_limit_is_short_and_at_the_end() {
    let mut site = Site::limited(hello, Limits { max_streams: Some(1), rate: None }).await;
    let mut client = site.http1().await;
    assert_eq!(by(&mut site, &mut client, "/t/acme/dc1/erp/", CI).await, 0);
    assert_eq!(by(&mut site, &mut client, "/t/acme/dc1/crm/", CI).await, 1);
    assert_eq!(by(&mut site, &mut client, "/t/acme/dc1/erp/", CI).await, 2);
    drop(client);
    let drained = site.gateway.drain().await;
    assert_eq!(drained, crate::base::drain::Drained::Clean);
    let rows = site.rows.take();
    assert_eq!(rows.iter().filter(|row| *row == "closed").count(), 3, "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_is_closed_in_time() {
    let mut site = Site::new(hello).await;
    let mut client = site.http1().await;
    let (gateway, stop) = (site.gateway.clone(), CancellationToken::new());
    let stopped = stop.clone();
    site.tasks.spawn(async move {
        tokio::select! { () = gateway.tidy_streams() => {}, () = stopped.cancelled() => {} }
    });
    assert_eq!(by(&mut site, &mut client, "/t/acme/dc1/erp/", CI).await, 0);
    assert_eq!(site.rows.take(), ["opened", "request"]);
    let (begun, mut rows) = (Instant::now(), Vec::new());
    while rows.is_empty() {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        rows = site.rows.take();
    }
    assert_eq!(rows, ["closed"]);
    assert!((44..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    stop.cancel();
}
