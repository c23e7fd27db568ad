//! What agent and gateway say to each other: messages to bytes and back, and this specification of it all. Owns every message,
//! the tokens and the heartbeat. Refuses to know sockets, TLS, and who may do what.
//!
//! # The protocol `underpass.v1`
//!
//! An *agent* dials a *gateway* and keeps the connection. The gateway then opens streams to the agent's targets over it. The
//! layers, from below: TCP (perhaps through an HTTP proxy's CONNECT), TLS 1.3 with certificates on both sides, a WebSocket,
//! one yamux connection inside its binary messages, and in that one *control stream* and one stream for each client.
//!
//! MUST, SHOULD and MAY are as in RFC 2119. Numbers of several bytes are big-endian. *Code* is a name of the codes' table
//! ([`crate::base::code`]). *Name* is `[a-z0-9]+(-[a-z0-9]+)*`, at most 32 characters: a tenant, group, agent, target or
//! gateway. Ids are 16 bytes, made as UUIDv7 (RFC 9562).
//!
//! # 1. TLS
//!
//! Version 1.3 only (RFC 8446). Either end prefers `TLS_AES_128_GCM_SHA256`. The gateway issues no tickets; neither end
//! resumes a session or sends early data. The dialer sends the endpoint's DNS name as SNI; none for an address. One port
//! serves several protocols, told apart by ALPN (RFC 7301). A `ClientHello` MUST offer exactly one of these names; with none,
//! an unknown one alone, or two of them, the gateway closes the connection:
//!
//! | ALPN | for | client certificate |
//! |---|---|---|
//! | `http/1.1` | the tunnel: sections 4 to 10 | required |
//! | `underpass-enroll/1` | enrollment: section 3 | none |
//! | `underpass-client/1` | one CONNECT of a client: section 12 | none |
//!
//! The gateway's `CertificateRequest` names no authorities. TLS 1.3 lets the dialer finish before its certificate is judged:
//! it MUST NOT take itself for connected before it has read the answer of section 4.
//!
//! # 2. Certificates
//!
//! A root signs an issuing CA, which signs leaves. All keys are ECDSA P-256. Either end sends leaf, issuing CA, root, in this
//! order; at most 4 certificates above the leaf are taken. Every check below is made after, and in addition to, path
//! validation (RFC 5280) to the one root:
//!
//! - Each certificate above the leaf is a CA with `keyCertSign` and without extended key usage.
//! - The leaf is of version 3, its serial positive and at most 20 octets. It has exactly one extended key usage, and as
//!   alternative names exactly one URI and otherwise only DNS names and addresses. Anything else, or something undecodable,
//!   refuses it.
//! - A gateway: `serverAuth`, `spiffe://DOMAIN/gateway/ID`, and every endpoint as DNS name or address. An agent checks its own
//!   DOMAIN and the name or address that it dialled.
//! - An agent: `clientAuth`, `spiffe://DOMAIN/tenant/TENANT/group/GROUP/agent/AGENT`, no DNS name and no address. The gateway
//!   checks its own DOMAIN and that the serial is not revoked.
//!
//! DOMAIN, the trust domain, is written like a DNS name in lower case, at most 64 characters; it is never resolved. The URIs
//! have one spelling: no percent-encoding, port, query or trailing slash. The agent's anchor is the root that it stored at
//! enrollment, never the operating system's store. The *pin* of a root is the SHA-256 of its SubjectPublicKeyInfo in DER.
//!
//! # 3. Enrollment
//!
//! ## The token
//!
//! `underpass-enroll-1.` followed by base64url without padding (RFC 4648, 5) of *message* and *checksum*. *message* is the
//! Protobuf encoding of
//!
//! ```proto
//! message EnrollmentToken {
//!   repeated string endpoints = 1;  // 1 to 16, "wss://HOST:PORT"
//!   bytes pin = 2;                  // 32 bytes
//!   bytes secret = 3;               // 32 random bytes
//!   int64 expires = 4;              // seconds since 1970
//!   string tenant = 5;              // for people; the gateway goes by its own record
//!   string group = 6;
//! }
//! ```
//!
//! in ascending field order, defaults left out; *checksum* is the first 4 bytes of SHA-256 over the prefix's ASCII and
//! *message*. A reader ignores white space around the token and refuses (`token_invalid`) one of more than 4096 characters,
//! another prefix, a wrong checksum, and a message that does not encode to the same bytes again. The digit in the prefix is
//! the version.
//!
//! ## The request
//!
//! The agent makes a P-256 key, keeps it, and tries the endpoints in order until one answers. It connects with ALPN
//! `underpass-enroll/1`, looks among the presented certificates for a self-signed CA whose pin is the token's, and verifies
//! the chain to it under the rules of section 2 (any trust domain). A matching hash elsewhere counts for nothing. Then one
//! HTTP/1.1 request, head and body at most 16 KiB each:
//!
//! ```text
//! POST /v1/enroll HTTP/1.1
//! Host: gw1.vendor.example:443
//! Content-Type: application/json
//!
//! {"secret":"<base64url of the 32 bytes, 43 characters>","csr":"<base64 of PKCS #10 in DER>","name":"agent-1"}
//! ```
//!
//! `name` is optional. Unknown fields are refused. The CSR has at most 8 KiB, an uncompressed P-256 key and an
//! `ecdsa-with-SHA256` signature by it; nothing but the key is taken. Answer 200:
//!
//! ```text
//! {"agent":"acme/dc1/agent-1","chain":"<PEM: leaf, issuing CA, root>","not_after":"2026-12-22T07:01:17Z","endpoints":["wss://gw1.vendor.example:443"]}
//! ```
//!
//! or a refusal, `{"code":…,"detail":…,"cause":…,"remedy":…}`: 400 `csr_invalid`, 403 `token_refused`, `token_expired`,
//! `revoked`, 429 `enroll_limited`, 503 `enroll_refused` (not the asker's fault; the token is not used up), 404 on any other
//! route. The same token with the same key gets the same certificate again until the token expires; another key is refused.
//! The agent checks that the leaf is for its key and an agent's, and that the chain ends in the pinned root, and stores key,
//! chain and root.
//!
//! # 4. Upgrade
//!
//! RFC 6455 over HTTP/1.1, no extensions:
//!
//! ```text
//! GET /v1/tunnel HTTP/1.1
//! Host: gw1.vendor.example:443
//! Connection: Upgrade
//! Upgrade: websocket
//! Sec-WebSocket-Version: 13
//! Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
//! Sec-WebSocket-Protocol: underpass.v1
//!
//! HTTP/1.1 101 Switching Protocols
//! Connection: Upgrade
//! Upgrade: websocket
//! Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
//! Sec-WebSocket-Protocol: underpass.v1
//! ```
//!
//! TLS handshake and upgrade together take at most 5 s. A refusal has the code in the header `Underpass-Refusal` and in its
//! text. They are checked in this order: 404 `upgrade_refused` another path; 400 `protocol_unsupported` without the
//! subprotocol; 400 `upgrade_refused` for a header `Underpass-Resume` that is malformed or there twice; 503 `stopping`; 409 for one
//! that is refused.
//!
//! ## Further lanes
//!
//! A *lane* is one such connection with its own yamux. The connection that a session begins with is its lane 0; an upgrade with
//! the header asks to be a further lane of a session that is there. The header is `session, lane, generation, received, proof`,
//! separated by a comma and a space: a UUID, three decimal numbers (`u32`, `u64`, `u64`) and base64url without padding of 32
//! bytes. *lane* is higher than every number that the session has seen: none is used twice. *generation* and *received* are 0.
//! *proof* shows that the sender knows the session's secret, on this very connection:
//!
//! ```text
//! exporter = TLS-Exporter("EXPERIMENTAL-underpass-lane", "", 32)                         (RFC 8446, 7.5; RFC 5705, 4)
//! proof    = HMAC-SHA-256(key, exporter || session (16) || lane (4) || generation (8) || received (8))
//! ```
//!
//! *key* is the text of `resume_secret` in `Welcome` as it stands (ASCII), `session` the 16 bytes of the UUID. The gateway
//! compares in constant time and answers 101 or 409 with
//!
//! | code | when |
//! |---|---|
//! | `not_here` | this instance has no such session of the group in the certificate: another one may have it |
//! | `lane_refused` | the session is another agent's, the proof is wrong, the lane is not a new one, or (below) not where that is claimed |
//! | `session_lanes` | the session has `max_lanes`, or is ending; or the agent has tried 120 further lanes, or taken lanes up 600 times, in a minute |
//!
//! A `not_here` has the instance that says it (`gateway` in its `Welcome`s, a UUID) in the header `Underpass-Instance`. Said by the
//! instance that had the session, it means that the session is over there: to the agent that is `resume_expired`.
//!
//! ## Lanes taken up again
//!
//! A lane, the first one included, outlives its connection if `Hello` names the capability `resume` and `Welcome` gives a
//! `resume_window_ms` and a secret. When a connection ends without a Close frame and without a violation, or counts as dead (section
//! 6), the lane *pauses* for so long: its yamux stays as it is at both ends, and each keeps what it has sent and the other has not
//! acknowledged (ours at most 32 MiB; beyond it nothing but answers goes out). A session whose lane 0 is paused gets no new streams.
//!
//! The agent dials again (where: section 9), and sends the header with the lane's number, *generation* one more than at its last attempt
//! (the first is 1) and *received*, the bytes of yamux that it has received on the lane since the lane began. The certificate may be
//! another one of the same agent. The gateway checks in this order: the session, the agent, the proof, that *generation* is higher than
//! any that it has accepted for the lane, and that *received* lies between what the agent has acknowledged and what was sent. From then on nothing
//! counts that an older connection of the lane brings, or still brings (it is *fenced*). The gateway answers 101 with
//!
//! ```text
//! Underpass-Received: 1048576
//! ```
//!
//! its own count of bytes received on the lane, in decimal. Both ends then go on in new messages with the byte after the one that the
//! other has, whatever the old connection broke in the middle of: a WebSocket frame that was cut is forgotten, a yamux frame goes on.
//! A refusal changes nothing; `not_here` and `lane_refused` say that no attempt can succeed, and the agent begins a new session.
//! When the window ends, the lane ends as with `resume_expired`; lane 0 ends the session. A session that is paused ends too when
//! another process of its agent (`instance` in `Hello`) begins one: it can't have what the first one kept.
//!
//! # 5. WebSocket
//!
//! The agent's first frame after 101 is a heartbeat (section 6); the gateway sends no frame before it has come, and closes the
//! connection (`protocol_violation`) on another first frame. After that:
//!
//! - Binary messages carry the bytes of one yamux connection. Message boundaries mean nothing; an empty message means nothing.
//! - A frame has at most 65,536 bytes of payload; our senders make it 65,528, with an agent's head four full TLS records.
//!   Senders don't fragment; receivers take the bytes of continuations as they come.
//! - A text message, a longer frame, anything that RFC 6455 forbids, and more than 1,000 frames in a second that bring nothing
//!   (empty ones, and Pings beyond 64 whose echoes wait) end the connection (`protocol_violation`).
//! - Agents mask with the key 0, which leaves the payload as it is; gateways don't mask. Receivers take any key. This deviates
//!   from RFC 6455, 5.3, whose unpredictable keys protect intermediaries that read plaintext: mutual TLS leaves none.
//! - A Close frame ends the connection, and the lane with it. Nothing is expected after it. Its status is 1000, and its reason may be the
//!   code that the lane, or the session, ends with: from a gateway `stopping`, `revoked`, `agent_disabled`, `certificate_expired` or
//!   `resume_expired`, from an agent `stopping` (it stops, or needs no more), `same_gateway`, `trust_changed` or `certificate_expired`. Any
//!   other status or reason, and none, reads as `link_closed`.
//!
//! # 6. Heartbeats
//!
//! Each end sends a Ping every 2 s, ahead of what is queued. Its payload has 17 bytes: kind `u8` = 1, sequence `u64` (1 on each connection,
//! then one more each time), received `u64` (bytes of yamux received on this lane since it began). The Pong returns the same bytes, as RFC
//! 6455, 5.5.3 says: it proves the round trip, and, since the peer reads in order, that it has read what was sent before the Ping. A
//! Ping with any other payload is answered and means nothing more.
//!
//! The received offset of a Ping acknowledges. On a lane that may be taken up again an end also sends an unsolicited Pong of the same shape
//! with kind 2 and sequence 0 once it has received 1 MiB, or 50 ms after the first byte, that it has not acknowledged. Offsets are
//! cumulative; one that is lower than an earlier one means nothing, one that is higher than what was sent is a violation.
//!
//! A connection counts as dead (`link_dead`) when no frame has come for 5 s; or when a byte or a Ping is older than 4 s, and
//! neither the acknowledged offset nor the sequence that is echoed has moved for 4 s, of which two Pings of the peer in a row must tell if it
//! is heard, for at most 30 s: that is loss in one direction, or of large packets. A slow queue that moves is alive. Both ends set `TCP_USER_TIMEOUT` to 6 s where they can.
//!
//! # 7. yamux
//!
//! As in the [specification](https://github.com/hashicorp/yamux/blob/master/spec.md), version 0, unextended. The agent is the
//! client (odd ids), the gateway the server (even ids). A stream's window starts with 256 KiB; a receiver may grow it, ours to
//! 16 MiB.
//!
//! - *Beginning.* A stream's first frame, Data or WindowUpdate, carries SYN; ours is sent with the first bytes. The receiver's
//!   first frame on it carries ACK; within 2 s it is sent by itself. A sender need not wait for it.
//! - *Size.* Our Data frames have at most 65,516 bytes of body, since a frame never leaves its message; receivers take what the
//!   window allows. One of more than 16 MiB ends the session.
//! - *End of file* is FIN, from our ends in a frame of its own behind the data. The other direction goes on.
//! - *Reset* is RST, both directions at once. A stream that is dropped before both its ends of file is reset. What came before
//!   the reset may still be read, and then reads as an error and never as an end of file; an end of file that came before it
//!   stays one.
//! - *Too many.* At most 1024 streams are open at a time, over all lanes of a session. A receiver takes 512 more on a lane,
//!   which the sender may have closed already, and resets what goes beyond, as it does when more streams are broken off than
//!   10,000 at once and 5,000 a second. That costs the stream and no other.
//! - *Memory.* A receiver may reset the stream that keeps most unread bytes when all of a lane keep too many (`memory_budget`).
//! - *Pings* are answered; they don't replace the heartbeats. Who doesn't take the answers is not read from any more.
//! - *GoAway* means that the sender takes no new streams; open ones live on. Ours is sent when the sender ends the session, and
//!   is followed by a Close frame, with which all streams end.
//!
//! A window that is overrun or granted beyond 2^32 - 1 costs its stream (RST); frames for streams that are not there and
//! unknown flags are passed over. What can't be understood ends the session (`protocol_violation`): another version, an unknown
//! type, a SYN with an id of the receiver's or of a stream that is there.
//!
//! # 8. Messages
//!
//! On the control stream, and once at the beginning of every other stream in each direction: the length as a varint of at most
//! 3 bytes, then so many bytes of Protobuf (proto3), at most 16,384. Unknown fields are ignored. A text that is to be shown is
//! cut and its control characters are escaped by the receiver. A message that lacks what is required is malformed.
//!
//! ```proto
//! syntax = "proto3";
//!
//! message Control {
//!   oneof body {
//!     Hello hello = 1;
//!     Welcome welcome = 2;
//!     Refused refused = 3;
//!     Drain drain = 16;
//!     Renew renew = 17;
//!     Lanes lanes = 18;
//!     StreamClosed stream_closed = 19;
//!     TargetsChanged targets_changed = 20;
//!     Revoked revoked = 21;
//!   }
//! }
//! message Hello {
//!   uint32 version_min = 1;            // protocol versions, both 1 today
//!   uint32 version_max = 2;
//!   string agent_version = 3;          // the program's, for people; 64 characters
//!   bytes instance = 4;                // 16 bytes: this run of the agent; required
//!   repeated Target targets = 5;       // at most 300 here
//!   uint32 capacity = 6;               // streams it takes at a time
//!   repeated string capabilities = 7;  // "resume": takes up broken lanes; "echo": section 10; unknown ones are passed over
//! }
//! message Target {
//!   string name = 1;                   // a name; required
//!   uint32 kind = 2;                   // 1 tcp, 2 http, 3 ldap; targets of other kinds are passed over
//! }
//! message Welcome {
//!   uint32 version = 1;                // spoken from here on
//!   bytes gateway = 2;                 // 16 bytes: this run of the gateway; required
//!   bytes session = 3;                 // 16 bytes; required
//!   string resume_secret = 4;          // proves further connections; empty: there are none
//!   uint32 resume_window_ms = 5;       // how long a broken lane waits; 0: not at all
//!   string direct_address = 6;         // "HOST:PORT", a hint; empty: none
//!   uint32 max_streams = 7;            // streams that the gateway opens at most
//!   uint32 max_lanes = 8;              // 0 means 1
//! }
//! message Refused {
//!   string code = 1;                   // unknown ones count as `internal`
//!   string detail = 2;                 // 512 characters
//! }
//! message Drain { uint32 deadline_ms = 1; }
//! message Renew {}
//! message Lanes { uint32 count = 1; }
//! message StreamClosed {
//!   uint32 lane = 1;                   // the stream's
//!   uint32 stream = 2;                 // the yamux id
//!   string code = 3;
//! }
//! message TargetsChanged {
//!   repeated Target added = 1;         // also with another kind
//!   repeated string removed = 2;
//! }
//! message Revoked {}
//!
//! message Open {
//!   bytes request = 1;                 // 16 bytes, in the logs and audits of both ends; required
//!   string target = 2;                 // the target's name on the agent; never an address; required
//!   uint32 spoken = 3;                 // 1 raw: a client's bytes, for any target; 2 http: HTTP/1.1, or HTTP/2 by prior knowledge,
//!                                      // for targets of kind http; 4 search, for targets of kind ldap (section 13); 8 echo, for
//!                                      // no target (section 10); required
//!   string caller = 4;                 // who asks, for people; 256 characters
//!   string source = 5;                 // the client, "192.0.2.1:1000" or "[2001:db8::1]:1000"; empty: unknown
//!   uint32 deadline_ms = 6;            // how long the gateway still waits for the reply
//!   string traceparent = 7;            // W3C trace context, passed on unread; 256 characters
//! }
//! message Reply {
//!   oneof answer { Accepted accepted = 1; Refused refused = 2; }
//! }
//! message Accepted {}
//! ```
//!
//! # 9. The session
//!
//! The agent opens one stream, the control stream, and sends `Hello`. The gateway answers `Welcome`, or `Refused` and closes.
//! All that within 5 s. The version is the smaller of the two maxima if both ranges hold it; else `Refused` with
//! `protocol_unsupported`. Who the agent is follows from its certificate alone. The agent takes a session with a gateway
//! *instance* once: if another of its endpoints has led to the same, it closes this one (`same_gateway`) and tries later.
//!
//! Afterwards both ends may send notices at any time. A second greeting, a malformed message and the end of the control stream
//! end the session; a body that is not known is ignored. A notice only hastens what the other end would learn anyway, and MAY
//! be dropped when too many wait.
//!
//! | notice | from | meaning |
//! |---|---|---|
//! | `targets_changed` | agent | Offers more, fewer or other targets; also those that did not fit into `Hello`. The gateway remembers 10,000. |
//! | `stream_closed` | both | Why the sender is about to reset a stream. |
//! | `drain` | both | The agent takes no new streams; the gateway wants another session. What is open ends after so long at the latest. |
//! | `revoked` | gateway | The agent's certificate was revoked; the session ends now. |
//! | `lanes` | gateway | More lanes would help: the agent should have so many in all. |
//! | `renew` | gateway | Reserved. |
//!
//! **Drain.** After the gateway's `drain` (it shuts down, or the ids of lane 0 run out) the agent dials anew; another instance may
//! answer. Once that attempt is over, well or not, the agent sends its own `drain`. After the agent's `drain` the gateway opens no more
//! streams, which until then it MAY, and sends a `drain` back, also if it has sent one before; the agent ends the session once
//! that has come and its last stream is done. Streams that were on their way when the agent shuts down are refused with
//! `agent_draining`.
//!
//! Any other stream that the agent opens is reset.
//!
//! **Lanes.** After `lanes` the agent MAY dial further lanes until it has as many as asked, at most `max_lanes` (and never more
//! than 16). It tries `direct_address` first, then the addresses of its endpoint; every lane is verified under the endpoint's
//! name, and its certificate must show the gateway that lane 0's did. `direct_address` is a hint: its port must be an
//! endpoint's, a forbidden address is never dialled, and a private one only if the endpoint resolves to one. After three
//! attempts that failed, or one refused with `lane_refused` or `session_lanes`, the session goes on with the lanes it has, for
//! a minute at least.
//!
//! A further lane is an upgraded connection of sections 5 to 7 without a control stream. The gateway opens streams on any lane;
//! a stream lives and dies on its own. A lane that ends, ends its streams (`session_lost`, or what its end or the
//! session's was decided with, such as `revoked`), lane 0 ends the session and all lanes. A lane that was broken is dialled as further ones are: the direct address first, the first attempt at once. `max_streams` is for all lanes together. The gateway closes a further lane that has had no stream for 60 s.
//!
//! # 10. Streams
//!
//! The gateway opens a stream and sends `Open`; the client's first bytes MAY follow at once (at most 64 KiB before the reply,
//! and none on a listener with `early_data: false` or for a caller or tenant with a rate). The agent, in this order:
//!
//! 1. reads `Open`, complete within 5 s; else it answers `Refused` with `open_invalid`,
//! 2. decides by its own configuration whether the target is permitted, and connects to it within its own timeout and the
//!    deadline,
//! 3. sends `Accepted`, and only then passes on the first byte; or sends `Refused` and ends its writing half.
//!
//! So a `Refused` promises that no byte reached the target, and the gateway MAY try the same bytes at another agent of the
//! group if the code says so ([`Code::elsewhere`](crate::base::code::Code::elsewhere)). A session that is lost before the
//! reply is `session_lost`, tried elsewhere, if no client byte was sent; else `outcome_unknown`, and the client is reset. The
//! gateway waits 15 s in all (`open_timeout`).
//!
//! After `Accepted` the stream carries bytes as they are. Each direction ends by itself: yamux FIN is the end of file of that
//! direction, and the other goes on. A connection that breaks at one end is a yamux RST, announced by `stream_closed` with
//! `target_reset`, `client_reset`, `idle_timeout` or `target_removed`; whoever receives it resets its own connection, so that
//! nobody takes a cut stream for a finished one. The notice travels beside the stream and may come late; then the receiver
//! goes by the RST. A gateway that has received it for a stream that seems to have ended well treats it as reset.
//!
//! **Echo.** On a stream opened with `spoken` 8 the agent sends `Accepted` and then what comes, up to 64 bytes, and ends it; `target`
//! means nothing. It reaches no target, so it needs no permission and counts among nobody's streams. An agent says that it does so by
//! the capability `echo`; from others the gateway asks none. Complete within 5 s, it tells an agent that serves from a connection that
//! merely stands. An agent takes 64 at a time over all its sessions and refuses others with `agent_streams`.
//!
//! # 11. Times and sizes
//!
//! | what | limit |
//! |---|---|
//! | TLS and upgrade; greeting; `Open`; an echo | 5 s each |
//! | an enrollment | 10 s |
//! | an agent's attempt, from DNS to `Welcome` | 15 s |
//! | between attempts | up to 0.5 s, doubling to 30 s, drawn evenly (full jitter); anew after a session of 10 s |
//! | WebSocket message; message of section 8 | 65,536; 16,384 bytes |
//! | bytes before the reply | 65,536 |
//! | further lanes that an agent dials for one session; an agent's attempts at one gateway | 12; 120 a minute |
//!
//! # 12. Clients
//!
//! ## The client token
//!
//! `underpass-client-1.` followed by *message* and *checksum* as in an enrollment token (section 3), in all at most 255 characters:
//! it is a password of SOCKS5 (RFC 1929). *message* is the Protobuf encoding of
//!
//! ```proto
//! message ClientToken {
//!   repeated string endpoints = 1;  // "HOST:PORT"; those that fit, perhaps none
//!   bytes pin = 2;                  // 32 bytes
//!   bytes secret = 3;               // 32 random bytes
//! }
//! ```
//!
//! A client shows the whole text, without white space around it. The gateway keeps the text's SHA-256 and compares that.
//!
//! ## CONNECT
//!
//! Over a connection of `underpass-client/1`, whose certificate it verifies as at an enrollment (section 3: by the pin), a client sends
//! one HTTP/1.1 CONNECT (RFC 9110, 9.3.6) for `TARGET.GROUP.TENANT.underpass:PORT`; the port means nothing. The same is taken on
//! listeners of kind `connect`, with or without TLS. The head is at most 8,192 bytes, ends each line with CRLF and folds none, has
//! `Proxy-Authorization: Basic` (the token is the password, the user means nothing) or `Bearer`, and neither body nor upgrade; a
//! `Host` must say what the request line does.
//!
//! The answer comes after the agent's reply: `200`, after which the target's bytes follow, or another status with the code in
//! `Underpass-Refusal` and a problem detail (RFC 9457) as its body, after which the gateway closes. Bytes behind the head go ahead to the
//! target, and count for nothing when the answer is a refusal. Either end of file travels as TLS's `close_notify`; the connection stays
//! open for the other way.
//!
//! # 13. HTTP and searches over a stream
//!
//! On a stream opened with `spoken` 1 (raw) the client's bytes travel as they are. A target of kind http or ldap is asked nothing but
//! what its rules permit even so: the agent reads these bytes, and its own answers are in the protocol's words.
//!
//! On one with `spoken` 2 (http) the gateway speaks HTTP/1.1 (RFC 9112), or HTTP/2 (RFC 9113) by prior knowledge; the first bytes, which
//! then are HTTP/2's preface, tell. One stream carries the requests of one caller, of HTTP/1.1 one at a time. Requests are in origin
//! form, without hop-by-hop fields and without the caller's token, and have
//!
//! - `Underpass-Request`: the request's id, a UUID, in the logs and audits of both ends;
//! - `Forwarded` (RFC 7239): `for`, `host` and `proto` of the client's request;
//! - `traceparent` (W3C Trace Context): the client's if it is valid, else a new one.
//!
//! A refusal of the agent is an answer with its code in `Underpass-Refusal` and a problem detail (RFC 9457) as its body. The agent takes
//! fields that begin with `Underpass-` out of a target's answers, so nobody else can say it.
//!
//! On one with `spoken` 4 (search) the gateway speaks HTTP/1.1 and sends `POST /search` with a JSON object of at most 64 KiB. The README
//! has its members and those of the answer, which is JSON, or JSON lines if `Accept` names `application/jsonl`.
//!
//! # 14. Test vectors
//!
#![doc = include_str!("wire/vectors.md")]

pub mod codec;
pub mod connect;
pub mod enroll;
pub mod farewell;
pub mod heartbeat;
pub mod hello;
pub mod hop;
pub mod login;
pub mod name;
pub mod notice;
pub mod open;
pub mod problem;
pub mod refusal;
pub mod reply;
pub mod resume;
pub mod token;
pub mod trace;

#[cfg(test)]
mod vectors;
