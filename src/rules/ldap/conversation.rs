//! One client's conversation with a directory: what is under way, who is logged in, and what becomes of each message. Without clock and
//! sockets. Refuses to know how messages come and go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::entries::Seen;
use super::{Denial, Rule, Rules};
use crate::base::limits::LDAP_OUTSTANDING;
use crate::ldap::ber::Malformed;
use crate::ldap::message::answer::{self, ResultCode};
use crate::ldap::message::request::{Bind, Proof, Request};
use crate::ldap::message::response::Response;
use crate::ldap::message::{Message, Operation};

/// What is under way between one client and its directory.
#[derive(Debug)]
pub struct Conversation {
    rules: Arc<Rules>,
    /// The operations that the directory has not finished.
    outstanding: HashMap<u32, Operation>,
    /// Those that the client has given up, or a bind has ended: what still comes of them goes nowhere. The oldest first.
    given_up: VecDeque<u32>,
    login: Login,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// No bind has been forwarded: to the directory the connection is nobody's.
    Nobody,
    /// A bind of this id is under way.
    UnderWay(u32),
    /// A bind has been answered: if it was a success, the connection is somebody's.
    Answered,
}

/// What becomes of a client's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Up {
    /// It goes to the directory as it is.
    Pass,
    /// This goes to the directory instead.
    Replace(Vec<u8>),
    /// This is answered instead of the directory. If the message was denied, by what.
    Answer(Vec<u8>, Option<Denial>),
    /// Nothing: it needs no answer, and the directory has no use for it.
    Drop,
    /// It goes to the directory, and is the client's last.
    Last,
}

/// What becomes of a directory's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Down {
    /// It goes to the client as it is.
    Pass,
    /// This goes to the client instead.
    Replace(Vec<u8>),
    /// Nothing.
    Drop,
    /// It goes to the client, and is the directory's last.
    Last,
}

impl Conversation {
    /// One that begins, under these rules.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self { rules, outstanding: HashMap::new(), given_up: VecDeque::new(), login: Login::Nobody }
    }

    /// From now on under these rules; what is under way is not asked again, but its answers are. Yields whether it may go on: not with a
    /// login that they would not let through.
    #[must_use]
    pub fn heed(&mut self, rules: &Arc<Rules>) -> bool {
        if !Arc::ptr_eq(rules, &self.rules) {
            self.rules = rules.clone();
        }
        self.login == Login::Nobody || self.rules.permits(Operation::Bind)
    }

    /// Whether the directory owes the client an answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Takes a client's message.
    ///
    /// # Errors
    /// [`Malformed`]: the client must be told so and left.
    pub fn client(&mut self, bytes: &[u8]) -> Result<Up, Malformed> {
        let message = Message::parse(bytes)?;
        let request = Request::read(&message)?;
        let Some(operation) = request.operation() else { return Ok(self.aside(&message, &request)) };
        let id = message.id;
        if id == 0 {
            return Err(Malformed::new("a request whose id is 0"));
        }
        if self.outstanding.contains_key(&id) {
            return Err(Malformed::new("a request with the id of another that is under way"));
        }
        let answered = |code, why: &str| answer::done(id, operation, code, why);
        let verdict = self.room(&message).and_then(|()| match &request {
            Request::Bind(bind) if bind.version != 3 => {
                Err(Denial::new(Rule::Version, ResultCode::ProtocolError, "LDAP version 3 is spoken"))
            }
            Request::Bind(bind) if self.login == Login::Nobody && is_anonymous(bind) => Ok(Verdict::Anonymous),
            _ => self.rules.request(&message, &request).map(Verdict::Goes),
        });
        Ok(match verdict {
            Err(denial) => Up::Answer(answered(denial.code, &denial.why), Some(denial)),
            Ok(Verdict::Anonymous) => Up::Answer(answered(ResultCode::Success, ""), None),
            Ok(Verdict::Goes(changed)) => {
                self.begin(id, operation);
                changed.map_or(Up::Pass, Up::Replace)
            }
        })
    }

    /// Takes a directory's message.
    ///
    /// # Errors
    /// [`Malformed`], also for an answer to what nobody asked: the directory can't be believed any more.
    pub fn directory(&mut self, bytes: &[u8]) -> Result<Down, Malformed> {
        let message = Message::parse(bytes)?;
        let response = Response::read(&message)?;
        if message.id == 0 {
            return Ok(unasked(&response));
        }
        let Some(operation) = self.outstanding.get(&message.id).copied() else { return self.late(&message, &response) };
        let seen = match response {
            Response::Entry(entry) if operation == Operation::Search => self.rules.entry(&message, entry)?,
            Response::Reference if operation == Operation::Search => self.rules.reference(),
            Response::Intermediate if matches!(operation, Operation::Search | Operation::Extended) => Seen::Whole,
            Response::Done(of, done) if of == operation => {
                self.end(message.id);
                self.rules.done(&message, operation, &done)
            }
            _ => return Err(Malformed(format!("an answer to a {operation} that is none to it").into())),
        };
        Ok(match seen {
            Seen::Whole => Down::Pass,
            Seen::Rebuilt(bytes) => Down::Replace(bytes),
            Seen::Hidden => Down::Drop,
        })
    }

    /// What is not answered. An abandon ends nothing that the directory has not been asked, and no bind (RFC 4511, 4.11).
    fn aside(&mut self, message: &Message<'_>, request: &Request<'_>) -> Up {
        let Request::Abandon(id) = request else { return Up::Last };
        if self.login == Login::UnderWay(*id) || self.outstanding.remove(id).is_none() {
            return Up::Drop;
        }
        self.give_up(*id);
        // It is denied nothing: controls that may not pass are left out.
        self.rules.request(message, request).ok().flatten().map_or(Up::Pass, Up::Replace)
    }

    /// Whether there is room for one more. While a bind is under way nothing else is asked (RFC 4511, 4.2.1): as whom would it be?
    fn room(&self, message: &Message<'_>) -> Result<(), Denial> {
        let busy = |rule, why: String| Err(Denial::new(rule, ResultCode::Busy, why));
        if let Login::UnderWay(bind) = self.login {
            return busy(
                Rule::BindUnderWay,
                format!("message {} came while the bind of message {bind} is under way", message.id),
            );
        }
        if self.outstanding.len() >= LDAP_OUTSTANDING {
            return busy(Rule::Outstanding, format!("{LDAP_OUTSTANDING} operations are under way; wait for one of them"));
        }
        Ok(())
    }

    fn begin(&mut self, id: u32, operation: Operation) {
        self.given_up.retain(|other| *other != id);
        self.outstanding.insert(id, operation);
        if operation == Operation::Bind {
            self.login = Login::UnderWay(id);
        }
    }

    fn end(&mut self, id: u32) {
        self.outstanding.remove(&id);
        if self.login == Login::UnderWay(id) {
            self.login = Login::Answered;
            // A bind ends what was under way (RFC 4511, 4.2.1).
            let ended: Vec<_> = self.outstanding.drain().map(|(id, _)| id).collect();
            ended.into_iter().for_each(|id| self.give_up(id));
        }
    }

    fn give_up(&mut self, id: u32) {
        if self.given_up.len() >= LDAP_OUTSTANDING {
            self.given_up.pop_front();
        }
        self.given_up.push_back(id);
    }

    /// What comes of an operation that was given up goes nowhere: the client does not wait for it.
    fn late(&mut self, message: &Message<'_>, response: &Response<'_>) -> Result<Down, Malformed> {
        let Some(at) = self.given_up.iter().position(|id| *id == message.id) else {
            return Err(Malformed(format!("an answer to message {}, which nobody has sent", message.id).into()));
        };
        if matches!(response, Response::Done(..)) {
            self.given_up.remove(at);
        }
        Ok(Down::Drop)
    }
}

enum Verdict {
    /// A bind as nobody that the directory need not know of.
    Anonymous,
    /// It goes on, made anew if need be.
    Goes(Option<Vec<u8>>),
}

fn is_anonymous(bind: &Bind<'_>) -> bool {
    bind.name.is_empty() && matches!(&bind.proof, Proof::Simple(password) if password.is_empty())
}

/// The notice before the end passes; nothing else is known that a directory says unasked.
fn unasked(response: &Response<'_>) -> Down {
    match response {
        // Active Directory's has no name within it.
        Response::Done(Operation::Extended, done) if done.oid.is_none_or(|oid| oid == answer::NOTICE_OF_DISCONNECTION) => {
            Down::Last
        }
        _ => Down::Drop,
    }
}
