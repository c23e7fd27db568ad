//! The agent's own echo, which answers the gateway's canary: that streams are served here, whatever becomes of targets. It reaches
//! nothing, so it needs no `Permit`, and takes no stream's place. Refuses to know policies, bridges and audits.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Agent;
use super::acceptor::refuse;
use crate::base::code::{Code, Failure, OrFail};
use crate::base::limits::{CANARY_DEADLINE, ECHOES};
use crate::tunnel::mux::Stream;
use crate::tunnel::session::Wired;
use crate::wire::open::ECHO;
use crate::wire::refusal::Refusal;
use crate::wire::reply::Reply;

/// Accepts, and sends back what comes, for as long as an echo may take.
pub(super) async fn serve(agent: &Agent, wired: Wired<Stream>) {
    let Ok(_place) = agent.echoes.try_acquire() else {
        let refusal = Refusal::new(Code::AgentStreams, format_args!("this agent answers its {ECHOES} echoes"));
        return refuse(wired, refusal).await;
    };
    match timeout(CANARY_DEADLINE, echo(wired)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::debug!(code = %failure.code, detail = failure.detail, "an echo broke off"),
        Err(_) => tracing::debug!("an echo took too long"),
    }
}

async fn echo(mut wired: Wired<Stream>) -> Result<(), Failure> {
    wired.send(&Reply::Accepted).await?;
    let (mut stream, mut bytes) = wired.into_parts();
    let answer = async {
        while bytes.len() < ECHO && stream.read_buf(&mut bytes).await? > 0 {}
        bytes.truncate(ECHO);
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        // The gateway's end of file, without which dropping the stream is a reset: right for one that says more than is echoed.
        stream.read(&mut [0]).await.map(drop)
    };
    answer.await.or_fail(Code::SessionLost, "echo")
}
