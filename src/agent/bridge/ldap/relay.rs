//! A client's LDAP and a directory's, joined message by message: each goes on, is changed, answered or left out as the conversation says.
//! What passes is not copied; what is on its way is bounded either way. It refuses to know who the client is and what is recorded.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::base::code::Code;
use crate::base::limits::{ANSWER_DEADLINE, LDAP_REQUEST, LDAP_RESPONSE, SPLICE_BUFFER, TURN};
use crate::ldap::ber::Malformed;
use crate::ldap::framer::{Framer, Outgoing};
use crate::ldap::message::answer::{ResultCode, notice_of_disconnection};
use crate::rules::ldap::{Conversation, Denial, Down, Rules, Up};
use crate::tunnel::mux::lost;
use crate::tunnel::splice::{Direction, Duplex, End};

/// Who knows the rules and keeps the records.
pub(super) trait Account {
    /// The rules in force; they may change between two messages.
    fn rules(&self) -> Arc<Rules>;

    /// A request did not pass.
    fn denied(&self, denial: &Denial);

    /// So much has gone on.
    fn count(&self, direction: Direction, bytes: usize);

    /// So much is held now, all in all; yields whether that may be.
    fn holds(&self, bytes: usize) -> bool;
}

/// Why a login ends that was let through by rules of before.
pub(super) const LOGIN_OUTLIVED: &str = "it has logged in, and the rules permit no bind any more";

/// Why a relay ended otherwise than in good order.
#[derive(Debug)]
pub(super) struct Cut {
    /// The code.
    pub(super) code: Code,
    /// In words.
    pub(super) why: String,
}

/// Passes messages until either side ends. `said` is what the client said before; `idle` ends a relay in which nothing moves.
///
/// # Errors
/// The [`Cut`]: `ldap_invalid`, `directory_invalid`, `target_reset`, `client_reset`, `session_lost`, `idle_timeout`,
/// `memory_budget` or `target_removed`. The client has been told before, in LDAP, where it can be.
pub(super) async fn relay<N: Duplex, F: Duplex>(
    said: Bytes,
    near: &mut N,
    far: &mut F,
    idle: Option<Duration>,
    account: &impl Account,
) -> Result<(), Cut> {
    let mut relay = Relay {
        conversation: Conversation::new(account.rules()),
        up: Inlet::new(LDAP_REQUEST),
        down: Inlet::new(LDAP_RESPONSE),
        to_far: Outlet::default(),
        to_near: Outlet::default(),
        parted: None,
        turn: 0,
        account,
    };
    relay.up.framer.chunks().push_back(said);
    let ended = relay.run(near, far, idle).await;
    relay.part(near, far, &ended).await;
    ended
}

struct Relay<'a, A> {
    conversation: Conversation,
    up: Inlet,
    down: Inlet,
    to_far: Outlet,
    to_near: Outlet,
    /// The side that has said its last message.
    parted: Option<End>,
    /// Bytes of messages that were looked at in this turn.
    turn: usize,
    account: &'a A,
}

/// What comes of one side.
struct Inlet {
    framer: Framer,
    ended: bool,
}

impl Inlet {
    fn new(max: usize) -> Self {
        Self { framer: Framer::new(max), ended: false }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>, from: &mut impl Duplex) -> Poll<io::Result<()>> {
        let polled = from.poll_chunks(cx, self.framer.chunks());
        if let Poll::Ready(Ok(())) = polled {
            self.ended = self.framer.chunks().is_empty();
        }
        polled
    }
}

/// What goes to one side.
#[derive(Default)]
struct Outlet {
    out: Outgoing,
    /// The side has not said that it took all, which may lie in its own buffers.
    taking: bool,
}

impl Outlet {
    fn is_idle(&self) -> bool {
        self.out.is_empty() && !self.taking
    }

    /// Changes whenever anything moves.
    fn state(&self) -> (usize, bool) {
        (self.out.bytes(), self.taking)
    }

    /// Yields how much was taken.
    fn poll_take(&mut self, cx: &mut Context<'_>, to: &mut impl Duplex) -> io::Result<usize> {
        if self.is_idle() {
            return Ok(0);
        }
        self.taking = match to.poll_take(cx, self.out.chunks()) {
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(())) => false,
            Poll::Pending => true,
        };
        Ok(self.out.settle())
    }
}

impl<A: Account> Relay<'_, A> {
    async fn run(&mut self, near: &mut impl Duplex, far: &mut impl Duplex, idle: Option<Duration>) -> Result<(), Cut> {
        let Some(idle) = idle else {
            return poll_fn(|cx| self.poll(cx, near, far, &mut || {})).await;
        };
        let timer: Sleep = sleep_until(Instant::now() + idle);
        tokio::pin!(timer);
        poll_fn(|cx| {
            let mut moved = false;
            let ended = self.poll(cx, near, far, &mut || moved = true);
            if moved {
                timer.as_mut().reset(Instant::now() + idle);
            }
            match (ended, timer.as_mut().poll(cx)) {
                (Poll::Ready(ended), _) => Poll::Ready(ended),
                (Poll::Pending, Poll::Ready(())) => {
                    let why = format!("nothing moved for {} s", idle.as_secs());
                    Poll::Ready(Err(Cut { code: Code::IdleTimeout, why }))
                }
                (Poll::Pending, Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }

    /// Moves what can be moved.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        near: &mut impl Duplex,
        far: &mut impl Duplex,
        moved: &mut dyn FnMut(),
    ) -> Poll<Result<(), Cut>> {
        self.turn = 0;
        loop {
            let before = (self.to_far.state(), self.to_near.state());
            let read = self.poll_up(cx, near)? | self.poll_down(cx, far)?;
            let gone = self.poll_out(cx, near, far)?;
            if read || gone > 0 {
                moved();
            }
            if self.is_done() {
                return Poll::Ready(self.end());
            }
            self.check_memory()?;
            if self.turn >= TURN {
                // Others of this thread have waited long enough.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !read && gone == 0 && before == (self.to_far.state(), self.to_near.state()) {
                return Poll::Pending;
            }
        }
    }

    /// Whether a message that is not whole yet, and what waits for a slow reader, may take what they take.
    fn check_memory(&self) -> Result<(), Cut> {
        let held = self.down.framer.held() + self.up.framer.held() + self.to_near.out.bytes() + self.to_far.out.bytes();
        if self.account.holds(held) {
            return Ok(());
        }
        let why = format!("{held} bytes are held, and the streams of this target hold all that they may together");
        Err(Cut { code: Code::MemoryBudget, why })
    }

    /// Whether more may be looked at: not for a client that takes no answers, and not beyond this turn.
    fn goes_on(&self) -> bool {
        self.parted.is_none() && self.turn < TURN && self.to_near.out.bytes() < SPLICE_BUFFER
    }

    /// What the client says. A client that takes no answers is not heard further, and neither is one that a slow directory does not follow.
    fn poll_up(&mut self, cx: &mut Context<'_>, near: &mut impl Duplex) -> Result<bool, Cut> {
        let mut read = false;
        while self.goes_on() && self.to_far.out.bytes() < SPLICE_BUFFER {
            match self.up.framer.next_message().map_err(of_client)? {
                Some(framed) => {
                    self.turn += framed.message.len();
                    self.heed_rules()?;
                    match self.conversation.client(&framed.message).map_err(of_client)? {
                        Up::Pass => self.to_far.out.pass(&framed),
                        Up::Replace(bytes) => self.to_far.out.push(bytes),
                        Up::Answer(bytes, denial) => {
                            denial.iter().for_each(|denial| self.account.denied(denial));
                            self.to_near.out.push(bytes);
                        }
                        Up::Drop => {}
                        Up::Last => {
                            self.to_far.out.pass(&framed);
                            self.parted = Some(End::Near);
                        }
                    }
                }
                None if self.up.ended || !self.to_far.is_idle() => break,
                None => match self.up.poll_more(cx, near) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Err(of_near(&error)),
                    Poll::Ready(Ok(())) => read = true,
                },
            }
        }
        Ok(read)
    }

    /// What the directory says, as far as the client takes it.
    fn poll_down(&mut self, cx: &mut Context<'_>, far: &mut impl Duplex) -> Result<bool, Cut> {
        let mut read = false;
        while self.goes_on() {
            match self.down.framer.next_message().map_err(of_directory)? {
                Some(framed) => {
                    self.turn += framed.message.len();
                    self.heed_rules()?;
                    match self.conversation.directory(&framed.message).map_err(of_directory)? {
                        Down::Pass => self.to_near.out.pass(&framed),
                        Down::Replace(bytes) => self.to_near.out.push(bytes),
                        Down::Drop => {}
                        Down::Last => {
                            self.to_near.out.pass(&framed);
                            self.parted = Some(End::Far);
                        }
                    }
                }
                None if self.down.ended || !self.to_near.is_idle() => break,
                None => match self.down.poll_more(cx, far) {
                    Poll::Pending => break,
                    // Not every directory says farewell in TLS; its messages say themselves whether they are whole.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.down.ended = true,
                    Poll::Ready(Err(error)) => return Err(of_far(&error)),
                    Poll::Ready(Ok(())) => read = true,
                },
            }
        }
        Ok(read)
    }

    /// Hands on what is on its way; yields how much has gone.
    fn poll_out(&mut self, cx: &mut Context<'_>, near: &mut impl Duplex, far: &mut impl Duplex) -> Result<usize, Cut> {
        let up = self.to_far.poll_take(cx, far).map_err(|error| of_far(&error))?;
        let down = self.to_near.poll_take(cx, near).map_err(|error| of_near(&error))?;
        for (direction, bytes) in [(Direction::Up, up), (Direction::Down, down)] {
            if bytes > 0 {
                self.account.count(direction, bytes);
            }
        }
        Ok(up + down)
    }

    /// A client that says no more is answered what it still waits for; who has parted, or is gone, is told no more.
    fn is_done(&self) -> bool {
        match self.parted {
            Some(End::Near) => self.to_far.is_idle(),
            Some(End::Far) => self.to_near.is_idle(),
            None if self.down.ended => self.to_near.is_idle(),
            None => self.up.ended && !self.conversation.is_waiting() && self.to_far.is_idle() && self.to_near.is_idle(),
        }
    }

    fn end(&self) -> Result<(), Cut> {
        let cut = |code, why: &str| Err(Cut { code, why: why.to_owned() });
        if self.parted.is_some() {
            return Ok(());
        }
        if self.down.ended && (self.conversation.is_waiting() || self.down.framer.held() > 0) {
            return cut(Code::TargetReset, "the directory closed the connection before it had answered");
        }
        if self.up.framer.held() > 0 {
            return cut(Code::ClientReset, "the client ended in the middle of a message");
        }
        Ok(())
    }

    fn heed_rules(&mut self) -> Result<(), Cut> {
        if self.conversation.heed(&self.account.rules()) {
            return Ok(());
        }
        Err(Cut { code: Code::TargetRemoved, why: LOGIN_OUTLIVED.to_owned() })
    }

    /// Tells the client why, if it would not know, and ends both sides. Nobody waits long for either.
    async fn part(&mut self, near: &mut impl Duplex, far: &mut impl Duplex, ended: &Result<(), Cut>) {
        if let Err(cut) = ended {
            let code = match cut.code {
                Code::LdapInvalid => ResultCode::ProtocolError,
                Code::DirectoryInvalid | Code::TargetReset | Code::IdleTimeout | Code::MemoryBudget | Code::TargetRemoved => {
                    ResultCode::Unavailable
                }
                _ => return,
            };
            // What is known of a directory stays here: the client learns that it is gone.
            let words = if cut.code == Code::LdapInvalid { cut.why.as_str() } else { cut.code.as_str() };
            self.to_near.out.push(notice_of_disconnection(code, words));
        }
        let farewell = async {
            let told = poll_fn(|cx| near.poll_take(cx, self.to_near.out.chunks())).await;
            self.account.count(Direction::Down, self.to_near.out.settle());
            if told.is_ok() {
                let _ = poll_fn(|cx| near.poll_finish(cx)).await;
            }
            let _ = poll_fn(|cx| far.poll_finish(cx)).await;
        };
        let _ = timeout(ANSWER_DEADLINE, farewell).await;
    }
}

fn of_client(malformed: Malformed) -> Cut {
    Cut { code: Code::LdapInvalid, why: malformed.to_string() }
}

fn of_directory(malformed: Malformed) -> Cut {
    Cut { code: Code::DirectoryInvalid, why: malformed.to_string() }
}

fn of_far(error: &io::Error) -> Cut {
    Cut { code: Code::TargetReset, why: error.to_string() }
}

fn of_near(error: &io::Error) -> Cut {
    Cut { code: lost(error).unwrap_or(Code::ClientReset), why: error.to_string() }
}

#[cfg(test)]
mod tests;
