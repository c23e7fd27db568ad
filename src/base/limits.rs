//! Every limit that is no configuration, with its reason, and the arithmetic of the memory bound.
//! Refuses to know who keeps to them.
//!
//! # Memory bound
//!
//! What a peer may send and what is kept of it are two things. Windows grant each lane `(MAX_STREAMS + MUX_SLACK) x STREAM_WINDOW +
//! SESSION_GROWTH` = 1536 x 256 KiB + 32 MiB = 416 MiB, most of it by the protocol, unasked.
//! Of that at most [`SESSION_BUFFER`] is kept: it counts each chunk of unread bytes with what it keeps in memory (the read
//! buffer that it lies in, or its copy, and [`CHUNK_COST`]), and past it the stream that holds most is reset.
//!
//! | each | at most | what |
//! |---|---|---|
//! | lane | 64 MiB | unread, over all its streams: `SESSION_BUFFER`, and the chunk that went past it |
//! | lane | 0.5 MiB | `READ_BUFFER`, `SOCKET_BUFFER`, a message on its way out, TLS's own, `CONTROL_QUEUE` answers |
//! | lane | 32 MiB | sent and not acknowledged: `RETAINED`; twice that where a peer asks on, takes the answers and acknowledges nothing |
//! | open stream | 366 KiB | to be sent: `SEND_QUEUE` and a chunk in 5 `SPLICE_BUFFER`s, a quarter full each; their places |
//! | open stream | 384 KiB | in its splice: a `SPLICE_BUFFER` from its socket; 5 `READ_BUFFER`s, a quarter full each, to it |
//! | open stream | 64 KiB | instead of these before its reply: `EARLY_DATA` |
//! | open stream of an ldap target | 320 KiB | beside these: a message that is not whole, and what goes on of it, 4 `SPLICE_BUFFER`s |
//! | ldap target | 128 MiB | `LDAP_TARGET_MEMORY`: larger messages, over all its streams and searches |
//! | dropped stream | 366 KiB | what is still to be sent, as above; there are `MUX_SLACK` of them |
//!
//! A lane with 1024 streams that take nothing either way, of a peer that plays every card, so keeps 64.5 + 64 + 1024 x 0.73 + 512 x
//! 0.36 MiB = 1.05 GiB. One that merely moves much has some 128 KiB under way for each stream at each end; a stream with nothing under way
//! has no buffer, and a lane on which nothing comes no read buffer. A session has up to [`MAX_LANES`] lanes, and its streams
//! are counted over all of them by whoever opens them. What a splice takes at once counts each chunk with [`CHUNK_COST`], too.
//!
//! Over all connections of a process what waits for readers (unread bytes of lanes, and what splices hold that nobody takes) is told to
//! one budget ([`crate::base::memory`]): half of the memory that the host, a control group or a limit leaves the process. At three
//! quarters of it new streams are refused, beyond it each lane gives back all but [`SPARED_BUFFER`]. What is not told of a stalled stream is some
//! 40 KiB, and of a lane its 0.5 MiB: the other half is for these.

mod directory;

use std::time::Duration;

pub use self::directory::*;

/// Streams that one session carries at a time, unless the configurations of both ends say more. One that goes beyond the mux's own limit is reset by the other end, so the
/// opener stays below it by counting ([`MUX_SLACK`] is the distance).
pub const MAX_STREAMS: usize = 1024;

/// Streams above [`MAX_STREAMS`] that the mux still takes: those that one end has closed and the other not yet, since a full
/// connection holds up their end, and the control stream.
pub const MUX_SLACK: usize = 512;

/// The receive window that every stream starts with (fixed by the yamux specification).
pub const STREAM_WINDOW: usize = 256 * 1024;

/// The largest window a stream grows to: 1 Gbit/s over 80 ms are 10 MB, and what is granted comes in steps.
pub const STREAM_WINDOW_MAX: u32 = 16 * 1024 * 1024;

/// What the windows of a lane's fast streams may grow by, together: one stream at its largest, and another on its way there.
pub const SESSION_GROWTH: usize = 32 * 1024 * 1024;

/// What unread bytes may hold of a lane's memory; beyond it the stream that holds most is reset. Some
/// 250 streams whose readers have stopped at once, with the window that each begins with.
pub const SESSION_BUFFER: usize = 64 * 1024 * 1024;

/// What a lane may hold in any case, also while the process is short of memory: the windows of some streams that are read.
pub const SPARED_BUFFER: usize = 1024 * 1024;

/// What is kept is told to the process's budget in steps of so much. 1000 keepers are off by 16 MiB.
pub const MEMORY_STEP: usize = 16 * 1024;

/// What a chunk that is retained costs beside its bytes, at most: the rest of what its message was put together in, its places in the queue
/// and in the one that goes out again. It bounds their number, too: a lane that goes on walks over all of them.
pub const RETAINED_CHUNK: usize = 512;

/// A peer is told of room in steps of at most this, so that a large window is refilled before it has run half empty.
pub const CREDIT_STEP: u32 = 512 * 1024;

/// What a stream's rate is measured over at least, before its window grows by it.
pub const WINDOW_PERIOD: Duration = Duration::from_millis(5);

/// What a round trip is taken for at least: on a shorter path the sender waits for the receiver's scheduler.
pub const ROUND_TRIP_MIN: Duration = Duration::from_micros(250);

/// A window that has been of no use for this long shrinks to [`STREAM_WINDOW`].
pub const WINDOW_IDLE: Duration = Duration::from_secs(10);

/// What a chunk of unread bytes takes beside them, at most: its place in a queue that may be half empty, and the smallest
/// allocation. Without it a peer that sends single bytes would make them fifty times what they are counted as.
pub const CHUNK_COST: usize = 96;

/// What a stream's writer may be ahead of the connection, before one last chunk.
pub const SEND_QUEUE: usize = 64 * 1024;

/// The same in chunks, since a writer of single bytes holds much more than them.
pub const SEND_CHUNKS: usize = 512;

/// What a stream sends before the next has its turn: one full message.
pub const QUANTUM: isize = 64 * 1024;

/// What a task moves before others have their turn: some 50 us of work.
pub const TURN: usize = 64 * 1024;

/// What streams that begin to send may send before one that sends much has its turn: eight full messages.
pub const SPARSE_AHEAD: usize = 512 * 1024;

/// Answers that wait to be sent; beyond it nothing more is read until the peer has taken some.
pub const CONTROL_QUEUE: usize = 1024;

/// Streams that a peer may open and drop at once; a dropped stream has cost a dial already.
pub const CHURN_BURST: u32 = 10_000;

/// The same, each second, once the burst is used up.
pub const CHURN_PER_SECOND: u32 = 5_000;

/// Ids of streams that a connection has left when its session begins anew: of 2^31 in all, and those of a minute at 15,000 a second.
pub const LAST_IDS: u32 = 2 * 1024 * 1024;

/// Empty WebSocket frames of one second; a peer that sends more wants work done for nothing.
pub const EMPTY_FRAMES_PER_SECOND: u32 = 1000;

/// The largest WebSocket message that is taken.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The largest that is sent: with its header four TLS records, and no crumb of a fifth.
pub const SENT_MESSAGE: usize = MAX_MESSAGE - 8;

/// What is read of a connection at once: four TLS records.
pub const READ_BUFFER: usize = 64 * 1024;

/// The buffer under TLS, so that a record is not read in 4 KiB steps.
pub const SOCKET_BUFFER: usize = 64 * 1024;

/// The most that a splice reads at once: what fits into one message beside the frames of others.
pub const SPLICE_BUFFER: usize = MAX_MESSAGE - 512;

/// What a splice reads at first; a source that fills it gets more.
pub const SPLICE_BUFFER_MIN: usize = 4 * 1024;

/// What a rate that was not used saves up for later, in time.
pub const RATE_BURST: Duration = Duration::from_secs(1);

/// The parts of a second's worth of a rate of which a stream gets one at a time, so that its turn comes soon again.
pub const RATE_PARTS: usize = 4;

/// How often a stream that waits for a rate looks whether its source is still there.
pub const RATE_LOOK: Duration = Duration::from_secs(1);

/// Client bytes kept until the reply comes, so that another agent can be tried with the same bytes.
pub const EARLY_DATA: usize = 64 * 1024;

/// The largest message of the control stream, and of a stream's opening.
pub const MAX_CONTROL_MESSAGE: usize = 16 * 1024;

/// Notices that wait to be written to the control stream; further ones are dropped. More than there are streams, so that all may
/// be closed at once: without its notice the other end may write to a closed stream until its session ends.
pub const NOTICE_QUEUE: usize = 2 * MAX_STREAMS;

/// How long the reason for a stream's reset is waited for: its notice takes another way than the reset, which goes first.
pub const REASON_DEADLINE: Duration = Duration::from_secs(1);

/// Between two heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// Without any frame for this long a peer is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(5);

/// A path on which nothing of what was sent gets through for this long, though the peer is heard, is dead. Twice [`HEARTBEAT`], so that one
/// heartbeat may be late by a whole interval.
pub const STUCK_AFTER: Duration = Duration::from_secs(4);

/// What was sent and not acknowledged, for each lane, with [`CHUNK_COST`]; beyond it nothing more goes out. As much as windows grow by
/// ([`SESSION_GROWTH`]): no stream that may send waits for it on a path of 1 Gbit/s and 80 ms, whose 10 MB are acknowledged 50 ms late.
pub const RETAINED: usize = 32 * 1024 * 1024;

/// How long a broken lane waits for another connection unless the gateway's configuration says otherwise: the failover of a firewall or
/// proxy, a new address. Two attempts of an agent that finds nobody take less.
pub const RESUME_WINDOW: Duration = Duration::from_secs(30);

/// The longest that may be configured: what is retained, and whoever waits for its streams, waits for so long.
pub const MAX_RESUME_WINDOW: Duration = Duration::from_secs(300);

/// How long an open waits, from its beginning, when every agent of its group has just lost its connection: a reset is mended in less.
pub const RESUME_PATIENCE: Duration = Duration::from_secs(2);

/// The first wait after an attempt to take up a lane failed, at most; the first attempt itself is made at once.
pub const RESUME_BASE: Duration = Duration::from_millis(100);

/// The longest wait between two such attempts: a window has room for some of them.
pub const RESUME_MAX: Duration = Duration::from_secs(2);

/// One such attempt, from its name's resolution to the gateway's answer, so that the next address has its turn.
pub const RESUME_DEADLINE: Duration = Duration::from_secs(4);

/// Attempts that an agent makes at once to take up lanes of one endpoint's sessions: a hundred cuts in a minute of a session with
/// [`MAX_LANES`] are mended at once, and some attempts fail.
pub const RESUME_DIALS_AT_ONCE: u32 = 480;

/// What it may make beyond them in a minute: a gateway that takes lanes up only to break them, or whose direct address is somebody
/// else's, gets no more.
pub const RESUME_DIALS_PER_MINUTE: u32 = 240;

/// Attempts of one agent to take up lanes in a minute, over all its sessions; more are refused. Its own pace is below it.
pub const RESUMES_PER_MINUTE: u32 = 600;

/// Bytes received after which the peer is told at once, so that it lets go of them.
pub const ACKNOWLEDGE_BYTES: u64 = 1024 * 1024;

/// Fewer bytes received are told after this long.
pub const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(50);
/// Between two canaries of a session: a stream to the agent's own echo, which tells an agent that serves from a tunnel that stands.
pub const CANARY_PERIOD: Duration = Duration::from_secs(30);

/// From a session's greeting to its first canary: whoever looks at a fresh session wants to know, and the greeting goes first.
pub const CANARY_FIRST: Duration = Duration::from_secs(1);

/// What a canary may take: as an `Open` at the agent.
pub const CANARY_DEADLINE: Duration = Duration::from_secs(5);

/// Echoes that an agent answers at a time, over all its sessions. A gateway has one under way for each of them, and one more that was
/// asked for is no work at all: it costs what a stream without an `Open` does.
pub const ECHOES: usize = 64;

/// Between two looks at whether this process has slept: so soon after waking it knows.
pub const SLEEP_TICK: Duration = Duration::from_secs(1);

/// What a look may be late without having slept: a host at its limits starves a process for a moment.
pub const SLEEP_NOTICED: Duration = Duration::from_secs(2);

/// After a sleep of this length a peer has given up on this end's acknowledgements, so that its connections are not waited for.
pub const SLEEP_BREAKS: Duration = Duration::from_secs(4);

/// Between two re-authorisations of a session, at most: what has ended or was withdrawn meanwhile ends the session.
pub const REAUTHORISE: Duration = Duration::from_secs(60);

/// Unacknowledged bytes end the TCP connection after this long (`TCP_USER_TIMEOUT`).
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(6);

/// Bytes that the kernel takes of a tunnel's connection beyond what it can send (`TCP_NOTSENT_LOWAT`): two messages, 10 ms at
/// 100 Mbit/s.
pub const TCP_NOTSENT_LOWAT: u32 = 128 * 1024;

/// TCP keep-alive on connections to clients and targets.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// From an accepted connection to a finished TLS handshake and upgrade.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// From the upgrade to `Hello` and `Welcome` exchanged.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// One attempt of an agent to reach a gateway, from DNS to the upgrade's answer.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// From the first byte of a stream to its complete `Open`, at the agent.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// From a client's connection to the reply, over all agents tried.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(15);

/// One attempt of a client to reach one of the gateway's endpoints, so that the next has its turn before [`REPLY_DEADLINE`].
pub const ENDPOINT_DEADLINE: Duration = Duration::from_secs(5);

/// From a client's CONNECT to the gateway's answer, which has [`REPLY_DEADLINE`] for it and a round trip.
pub const ASK_DEADLINE: Duration = Duration::from_secs(20);

/// The longest wait of a client between two rounds through the endpoints: somebody sits before it.
pub const RETRY_MAX: Duration = Duration::from_secs(2);

/// How long a standard input may be silent, once the target has said its last byte, before it counts as ended: whoever holds it
/// open has been told the end and may not mean to close it.
pub const STDIN_LINGER: Duration = Duration::from_secs(5);

/// How long a refused client has to take its answer.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// How long its connection is then kept until it closes: a reset must not overtake the answer.
pub const ANSWER_LINGER: Duration = Duration::from_secs(1);

/// A target's connect timeout unless its configuration says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an http target may take to begin its answer unless its configuration says otherwise.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Directories beside a target's first: within a connect timeout no more can be tried in turn.
pub const MAX_ALTERNATES: usize = 8;

/// Between two addresses of one name (RFC 8305, 5: 250 ms).
pub const HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried; a name with a thousand records costs no more.
pub const MAX_ADDRESSES: usize = 16;

/// A name's addresses are used this long.
pub const DNS_CACHE: Duration = Duration::from_secs(10);

/// How long name servers may take to answer for a gateway's name when it is known where it led last: enough for one that is slow, and so
/// little that [`DIAL_DEADLINE`] leaves most to what is tried then.
pub const DNS_PATIENCE: Duration = Duration::from_secs(3);

/// Names whose addresses are kept; targets are few, so this is never reached in earnest.
pub const DNS_CACHE_ENTRIES: usize = 1024;

/// The first wait before reconnecting, at most.
pub const RECONNECT_BASE: Duration = Duration::from_millis(500);

/// The longest wait before reconnecting.
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// A session that lived this long resets the back-off.
pub const SESSION_PROVEN: Duration = Duration::from_secs(10);

/// A certificate signing request; ours are under 400 bytes.
pub const MAX_CSR: usize = 8 * 1024;

/// The body and the head of an HTTP request on the enrollment route and the admin sockets.
pub const MAX_HTTP_REQUEST: usize = 16 * 1024;

/// Connections in the handshake, per listener: beyond it the accept loop waits.
pub const MAX_HANDSHAKES: usize = 512;

/// The part of a listener's places for handshakes that one source may have: an eighth. Its further connections wait for these, so a host
/// that holds its own half-open leaves the others most; and 64 at a time are some hundreds a second over any distance.
pub const HANDSHAKE_SHARES: usize = 8;

/// Connections of one source that are in their handshake or wait for it; one more is let go. A sixteenth of [`MAX_CONNECTIONS`], and more than
/// the agents of a large site that all come back at once.
pub const HANDSHAKES_WAITING: usize = 1024;

/// One request of an operator or a scraper, from its connection to the last byte of its answer.
pub const HTTP_DEADLINE: Duration = Duration::from_secs(30);

/// Connections of one listener.
pub const MAX_CONNECTIONS: usize = 16 * 1024;

/// Connections of enrolling agents at a time, so that strangers leave most of [`MAX_CONNECTIONS`] to agents: at some 200 KiB each
/// they take 100 MiB at most.
pub const MAX_ENROLLING: usize = 512;

/// The same from one source: an IPv4 address, or an IPv6 network of 64 bits.
pub const MAX_ENROLLING_PER_SOURCE: usize = 64;

/// Sessions of one agent with one gateway at a time. It has one for each endpoint; more are clones of its machine, or an attack.
pub const MAX_SESSIONS_PER_AGENT: usize = 64;

/// Sessions that one agent begins in a minute: each costs handshakes and two audit rows, which nobody may fill with them.
pub const SESSIONS_PER_MINUTE: u32 = 120;

/// A client's CONNECT with its headers, and a gateway's answer to it; a browser's has 0.5 KiB. The body of an answer may have
/// as much.
pub const CLIENT_HEAD: usize = 8 * 1024;

/// Headers of these; a browser sends 10.
pub const CLIENT_HEADERS: usize = 64;

/// A PROXY header of version 2: the longest addresses (216 bytes, of Unix sockets) and what balancers add about TLS.
pub const PROXY_HEADER: usize = 2 * 1024;

/// Two processes that hold one agent's identity together for this long are clones: longer than a dead session lingers beside the
/// one that replaces it ([`DEAD_AFTER`], [`TCP_USER_TIMEOUT`]).
pub const DUPLICATE_AFTER: Duration = Duration::from_secs(10);

/// Sessions that one audit row names.
pub const AUDIT_SESSIONS: usize = 8;

/// Lanes of one session unless the gateway's configuration says otherwise: one connection each.
pub const MAX_LANES: usize = 4;

/// Lanes that may be configured, and that an agent dials for one session whatever its gateway says. Beyond the processor's
/// cores further ones carry nothing more.
pub const MAX_LANES_CONFIGURED: usize = 16;

/// Bytes per second, both ways together, from which a stream counts as bulk: more than an interactive one moves, and far less
/// than what makes others wait.
pub const BULK_RATE: u64 = 1024 * 1024;

/// A further lane without a stream is closed after this long.
pub const LANE_IDLE: Duration = Duration::from_secs(60);

/// Between two notices that ask for the same lanes: an agent's attempts take up to [`DIAL_DEADLINE`] each.
pub const LANES_ASK_PAUSE: Duration = Duration::from_secs(5);

/// Attempts at a further lane that may fail before the session goes on with those it has.
pub const LANE_MISSES: usize = 3;

/// How long a session then makes do with them, whatever the gateway asks.
pub const LANE_PAUSE: Duration = Duration::from_secs(60);

/// Further lanes that an agent dials for one session in a minute: a gateway that asks, takes and closes them gets no more.
pub const LANE_DIALS_PER_MINUTE: usize = 12;

/// Upgrades to further lanes that one agent may try in a minute: those of its sessions, and no flood.
pub const LANES_PER_MINUTE: u32 = 120;

/// Enrollment attempts per minute and source address.
pub const ENROLL_PER_MINUTE: usize = 5;

/// Failed logins of clients per minute and source address; further ones are answered with `login_limited`. A program with an old token
/// that tries again every two seconds stays below it.
pub const LOGIN_FAILURES_PER_MINUTE: usize = 30;

/// Source addresses whose attempts, of each of these kinds, are remembered.
pub const THROTTLED_SOURCES: usize = 64 * 1024;

/// An enrollment token's text; with two endpoints it has 250 characters.
pub const MAX_TOKEN: usize = 4 * 1024;

/// A client token's text: what fits into a password of SOCKS5, whose length is one byte (RFC 1929, 2).
pub const MAX_CLIENT_TOKEN: usize = 255;

/// The gateways that one enrollment token names.
pub const MAX_TOKEN_ENDPOINTS: usize = 16;

/// An enrollment token's validity unless another is asked for.
pub const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// An enrollment token's longest validity: it passes through chats and tickets, where it may be found later.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Client tokens of a gateway, also those that have ended and are still listed. Each change reads and publishes them all.
pub const MAX_CLIENT_TOKENS: usize = 10_000;

/// A client token's validity unless another is asked for: one that nobody remembers ends some day, and one that is in use is
/// looked at once a year.
pub const CLIENT_TOKEN_TTL: Duration = Duration::from_hours(365 * 24);

/// A client token's shortest validity; it would end on the way to its user.
pub const CLIENT_TOKEN_TTL_MIN: Duration = Duration::from_secs(60);

/// A client token's longest validity: whoever means longer means `never`, and says so.
pub const CLIENT_TOKEN_TTL_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Client tokens stay listed for this long after their end, for whoever looks for why a client is refused.
pub const CLIENT_TOKEN_KEPT: Duration = Duration::from_hours(30 * 24);

/// One record of the store; the largest, a client token with all its grants and one redeemed with its certificate chain, have some 6 KiB.
pub const MAX_RECORD: usize = 64 * 1024;

/// Operations that wait for the store, and how many of them share one sync to the disk.
pub const STORE_QUEUE: usize = 256;

/// How long the store waits for another process (somebody's `sqlite3`) to let go of the database file.
pub const STORE_BUSY: Duration = Duration::from_secs(5);

/// Streams of a target unless its configuration says otherwise.
pub const TARGET_STREAMS: usize = 200;

/// How long open streams may go on after the signal to end.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A refusal's detail on the wire.
pub const MAX_DETAIL: usize = 512;

/// A stranger's text in an audit row, in characters.
pub const AUDIT_TEXT: usize = 512;

/// The audit's size before `on_full` decides, unless the configuration says otherwise.
pub const AUDIT_SIZE: u64 = 256 * 1024 * 1024;

/// The smallest size of an audit that may be configured.
pub const AUDIT_SIZE_MIN: u64 = 1024 * 1024;

/// The audit's files: each takes this part of its size.
pub const AUDIT_FILES: u64 = 8;

/// How long rows of requests may wait, so that many are written at once: each alone costs as much as a small request itself. A process
/// that is killed loses so much.
pub const AUDIT_HOLD: Duration = Duration::from_millis(100);

/// What those rows may take together: some 200 of them, and half of the smallest file.
pub const AUDIT_HELD: usize = 64 * 1024;

/// Audit rows a minute for refused connections and enrollments of strangers, and the log lines beside them; further ones are
/// counted in one row. Nobody without a certificate may fill the audit.
pub const AUDIT_STRANGERS_PER_MINUTE: u32 = 120;

/// The same of one source, so that whoever makes noise hides nobody else's.
pub const AUDIT_STRANGERS_PER_SOURCE: u32 = 10;

/// Audit rows a minute for refused streams of one caller, and the log lines beside them; further ones are counted in one row. A
/// program that tries again every second has each of its own; one that asks without end takes some 30 MB of audit in a day.
pub const AUDIT_REFUSALS_PER_CALLER: u32 = 60;

/// The same of all callers: ten that ask without end hide nobody else's first.
pub const AUDIT_REFUSALS_PER_MINUTE: u32 = 600;

/// Audit rows a minute for broken and resumed lanes of one agent, and the log lines beside them; further ones are counted in one row.
/// A link that breaks every 4 s is told each time; one that somebody resets without end takes some 12 MB of audit in a day.
pub const AUDIT_BREAKS_PER_AGENT: u32 = 30;

/// The same of all agents: when a network fails over, [`AUDIT_SOURCES`] of them have both rows.
pub const AUDIT_BREAKS_PER_MINUTE: u32 = 2048;

/// Sources of a minute that are told apart, some 64 bytes each, agents, and callers, with names of at most [`AUDIT_TEXT`]; those of
/// further ones are one sum.
pub const AUDIT_SOURCES: usize = 1024;

/// The sources, the callers and the agents that the row of a minute names: of each those that were counted most.
pub const AUDIT_NOISIEST: usize = 8;

/// Log lines that wait for a slow or blocked reader; further ones are dropped and counted.
pub const LOG_LINES: usize = 4096;

/// What those lines may take together.
pub const LOG_BUFFER: usize = 1024 * 1024;

/// How long the end of a process waits for its last log lines to be read.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);

/// A secret, certificate or configuration file; ours are a few KiB.
pub const MAX_TRUSTED_FILE: usize = 1024 * 1024;

/// An agent's certificate lives this long unless the gateway's configuration says otherwise.
pub const AGENT_CERTIFICATE_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// What may be configured for connections of one listener.
pub const MAX_CONNECTIONS_CONFIGURED: usize = 1_000_000;

/// What may be configured for streams of an agent or a target.
pub const MAX_STREAMS_CONFIGURED: usize = 100_000;

/// Rules of one target: more than a person looks through, and all of them take some 5 MB.
pub const MAX_RULES: usize = 10_000;

/// Segments of a rule's path, with which its tree is as deep.
pub const MAX_PATTERN_SEGMENTS: usize = 64;

/// Entries of one list of a rule (methods, query keys, headers).
pub const MAX_RULE_LIST: usize = 256;

/// The head of an HTTP request or answer that the agent reads; servers take 8 to 48 KiB.
pub const HTTP_HEAD: usize = 64 * 1024;

/// What is read of an HTTP connection at once, at most; a head must fit.
pub const HTTP_BUFFER: usize = 2 * HTTP_HEAD;

/// Headers of an HTTP request or answer.
pub const HTTP_HEADERS: usize = 128;

/// How long a stream of HTTP may wait for its next request, and the request's head may take: longer than a gateway keeps an idle stream,
/// so that it is the one who closes and no request meets a closing stream.
pub const HTTP_IDLE: Duration = Duration::from_secs(90);

/// Requests of one HTTP/2 connection at a time (RFC 9113, 6.5.2: no less than 100).
pub const HTTP2_REQUESTS: u32 = 100;

/// What an HTTP/2 peer may send of one request before it is read, and of all of a connection: 100 Mbit/s over 80 ms.
pub const HTTP2_WINDOW: u32 = 1024 * 1024;

/// Requests that an HTTP/2 peer may reset before they were looked at, and those that it may have reset by breaking their rules, before the
/// connection is closed: floods of either (CVE-2023-44487, CVE-2025-8671).
pub const HTTP2_RESETS: usize = 64;

/// Between two questions to an HTTP/2 peer whether it is still there, and how long it has for the answer.
pub const HTTP2_KEEPALIVE: Duration = Duration::from_secs(20);

/// How long a client's HTTP connection may be without a request, unless the listener's `idle_timeout` says otherwise.
pub const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a stream of HTTP is kept for its caller's next request.
pub const HTTP_STREAM_IDLE: Duration = Duration::from_secs(45);

/// Idle streams of HTTP/1.1 kept for one caller and target: as many requests at a time find one each.
pub const HTTP_IDLE_STREAMS: usize = 128;

/// The same of all callers: with what an idle stream and both ends' buffers take, some 64 MiB.
pub const HTTP_IDLE_STREAMS_ALL: usize = 4096;

/// Connections of one stream to an origin that speaks HTTP/1.1 alone, each with one request at a time.
pub const ORIGIN_CONNECTIONS: usize = 32;

/// How long a connection to an origin is kept for a next request; many servers close theirs after 60 s, some after 5.
pub const ORIGIN_IDLE: Duration = Duration::from_secs(30);

/// How long a client that waits for leave to send its body is made to wait for an origin that knows nothing of it.
pub const EXPECT_TIMEOUT: Duration = Duration::from_secs(1);
