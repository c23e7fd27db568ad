//! The `yamux` crate as a peer, in the hands of a task that runs it. Refuses to know what is compared.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use underpass::base::tasks::Tasks;
use underpass::tunnel::mux::Side;
use yamux::{Config, Connection, Mode};

pub(crate) type Stream = Compat<yamux::Stream>;

/// The crate's end of a connection.
pub(crate) struct Reference {
    asks: mpsc::Sender<oneshot::Sender<Stream>>,
    arrived: mpsc::Receiver<Stream>,
    tasks: Tasks,
}

impl Reference {
    pub(crate) fn over<S>(wire: S, side: Side) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mode = if side == Side::Agent { Mode::Client } else { Mode::Server };
        let mut config = Config::default();
        config.set_max_num_streams(2048);
        let connection = Connection::new(wire.compat(), config, mode);
        let (asks, asked) = mpsc::channel(16);
        let (arrives, arrived) = mpsc::channel(2048);
        let tasks = Tasks::new();
        let mut run = Run { connection, asked, waiting: VecDeque::new(), arrives };
        tasks.spawn(async move { poll_fn(|cx| run.poll(cx)).await });
        Self { asks, arrived, tasks }
    }

    pub(crate) async fn open(&self) -> Stream {
        let (ask, answer) = oneshot::channel();
        self.asks.send(ask).await.expect("the connection lives");
        answer.await.expect("a stream is opened")
    }

    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.arrived.recv().await
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

struct Run<S> {
    connection: Connection<S>,
    asked: mpsc::Receiver<oneshot::Sender<Stream>>,
    waiting: VecDeque<oneshot::Sender<Stream>>,
    arrives: mpsc::Sender<Stream>,
}

impl<S: futures_util::AsyncRead + futures_util::AsyncWrite + Unpin> Run<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(Some(ask)) = self.asked.poll_recv(cx) {
            self.waiting.push_back(ask);
        }
        while !self.waiting.is_empty() {
            let Poll::Ready(opened) = self.connection.poll_new_outbound(cx) else { break };
            let Ok(stream) = opened else { return Poll::Ready(()) };
            let _ = self.waiting.pop_front().expect("it is not empty").send(stream.compat());
        }
        loop {
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    self.arrives.try_send(stream.compat()).expect("room for as many as there may be")
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
