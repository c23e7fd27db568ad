//! Every refusal and error as one stable code, with whose fault it is, its cause and its remedy: the table that
//! `underpass explain` and the README print. Refuses to know how a code travels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whose fault it is, that is, who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller: a wrong name, token, argument or a limit it reached.
    Caller,
    /// The agent's site: its configuration, host or limits.
    Agent,
    /// The system behind the agent.
    Target,
    /// The gateway: its configuration, host or limits.
    Gateway,
    /// What lies between agent and gateway.
    Network,
}

impl Fault {
    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Agent => "agent",
            Self::Target => "target",
            Self::Gateway => "gateway",
            Self::Network => "network",
        }
    }
}

/// Process exit codes (after BSD's sysexits), the same for every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A wrong command line.
    Usage = 64,
    /// What is needed does not answer.
    Unavailable = 69,
    /// A defect of Underpass.
    Internal = 70,
    /// A drain's deadline cut open streams.
    Cut = 75,
    /// Not allowed.
    Denied = 77,
    /// A wrong configuration or state.
    Config = 78,
}

macro_rules! codes {
    ($($variant:ident $name:literal $fault:ident $exit:ident $elsewhere:literal : $cause:literal ; $remedy:literal)*) => {
        /// A stable code. Its name never changes its meaning; new ones are added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $cause] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name that is printed, logged and sent.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Who can mend it.
            #[must_use]
            pub fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }

            /// The exit code of a command that ends with it.
            #[must_use]
            pub fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)* }
            }

            /// Whether another agent of the group may be tried with the same bytes. Only codes which promise that no byte
            /// reached the target say yes.
            #[must_use]
            pub fn elsewhere(self) -> bool {
                match self { $(Self::$variant => $elsewhere,)* }
            }

            /// What it means.
            #[must_use]
            pub fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            /// What to do.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    NoAgent "no_agent" Agent Unavailable false:
        "No agent of the group is connected to this gateway." ;
        "Run `underpass agents list` on the gateway, then `underpass agent status` on the agent's host."
    TargetUnknown "target_unknown" Agent Config true:
        "The agent's configuration has no target of that name." ;
        "Compare the name with `targets:` in agent.yaml; add it there and reload the agent (SIGHUP)."
    TargetKindMismatch "target_kind_mismatch" Caller Config false:
        "The target is of another kind than the one asked for." ;
        "Ask an http target by /t/TENANT/GROUP/TARGET/…, an ldap target by POST to …/search; either, and tcp, by CONNECT, SOCKS5 or a listener with a `target`."
    AddressForbidden "address_forbidden" Agent Denied true:
        "The target's address is link-local, metadata, multicast, broadcast or unspecified: never dialled." ;
        "Give the target its real address in agent.yaml; if a name resolved to it, find out why."
    LoopbackForbidden "loopback_forbidden" Agent Denied true:
        "The target is on the agent's own host, which its configuration does not allow." ;
        "If that is meant, set `allow_loopback: true` on the target in agent.yaml."
    TargetDnsFailed "target_dns_failed" Agent Unavailable true:
        "The agent's host could not resolve the target's name." ;
        "Try `getent hosts NAME` on the agent's host; mend its resolver or the address in agent.yaml."
    TargetRefused "target_refused" Target Unavailable true:
        "The target refused the TCP connection: nothing listens there." ;
        "Start the service, or correct the port in agent.yaml."
    TargetUnreachable "target_unreachable" Target Unavailable true:
        "There is no route from the agent to the target." ;
        "Check routes and firewalls between the agent's host and the target."
    TargetTimeout "target_timeout" Target Unavailable true:
        "The target did not accept the connection within `connect_timeout`." ;
        "Check firewalls (dropped packets look like this) or raise `limits.connect_timeout` of the target."
    TargetReset "target_reset" Target Unavailable false:
        "The target reset the connection in the middle." ;
        "Look into the target's own log."
    TargetTlsFailed "target_tls_failed" Target Unavailable true:
        "TLS with the target did not come to be." ;
        "Look whether its port speaks TLS 1.2 or 1.3 and wants a client certificate (`tls.cert` and `tls.key` of the target in agent.yaml)."
    TargetTlsUntrusted "target_tls_untrusted" Target Denied true:
        "The target's certificate is not one that this agent believes: unknown issuer, expired or unfit." ;
        "Name the CA that issued it in `tls.ca_file` of the target in agent.yaml, or have the certificate renewed."
    TargetTlsNameMismatch "target_tls_name_mismatch" Target Denied true:
        "The target's certificate is for another name than the one dialled." ;
        "Dial it by a name of its certificate, or give that name as `tls.server_name` of the target in agent.yaml."
    TargetStreams "target_streams" Agent Unavailable true:
        "The target has as many streams as its `max_streams` allows." ;
        "Wait, close streams, raise `limits.max_streams` of the target, or add an agent."
    AgentStreams "agent_streams" Agent Unavailable true:
        "The agent has as many streams as it carries." ;
        "Add an agent to the group, or raise `limits.max_streams` in agent.yaml."
    OutOfDescriptors "out_of_descriptors" Agent Unavailable true:
        "The process has no file descriptors left: an agent refuses streams, a listener pauses." ;
        "Raise `LimitNOFILE=` of its service unit, or add an agent."
    MemoryShort "memory_short" Agent Unavailable true:
        "As many bytes wait for their readers as the process has memory for: it takes no new streams." ;
        "Look for readers that have stopped (`memory_budget` in the audit); give the process more memory, or add an agent."
    AgentDraining "agent_draining" Agent Unavailable true:
        "The agent is shutting down and takes no new streams." ;
        "Nothing if another agent serves the group; else wait for its return."
    AuditFull "audit_full" Agent Unavailable true:
        "The audit cannot be written and is configured to refuse work rather than lose records." ;
        "Free space or raise `audit.max_size`, or choose `audit.on_full: drop`."
    OpenInvalid "open_invalid" Gateway Internal false:
        "The opening message of a stream was malformed, too long or too late." ;
        "Compare the versions of agent and gateway; if they match, report a defect."
    OpenTimeout "open_timeout" Network Unavailable false:
        "The agent did not answer in time." ;
        "Look at the agent's log under the request id; the link may be overloaded."
    SessionStreams "session_streams" Gateway Unavailable true:
        "The session carries as many streams as it can." ;
        "Add an agent to the group."
    MemoryBudget "memory_budget" Caller Unavailable false:
        "Unread bytes filled the tunnel's memory, and this stream held most of them." ;
        "Its reader is too slow or stuck: look at the end that should read. Other streams went on."
    SessionLost "session_lost" Network Unavailable true:
        "The session with the agent broke." ;
        "Clients may connect again: the agent reconnects by itself. See its log for why it broke."
    OutcomeUnknown "outcome_unknown" Network Unavailable false:
        "The session broke after client bytes had been sent and before the agent's reply: they may have reached the target." ;
        "Check at the target whether the request took effect before repeating it."
    QuotaExceeded "quota_exceeded" Caller Unavailable false:
        "The tenant, or the caller itself, has as many streams as its `max_streams` on the gateway allows; the detail says whose." ;
        "Close streams; or raise `tenants.NAME.limits.max_streams` or `client_ca.names.NAME.limits.max_streams` in gateway.yaml, or make \
         a token with a larger `--max-streams`."
    SourceDenied "denied_source_ip" Caller Denied false:
        "The connection came from an address that `allow_from` does not contain." ;
        "Connect from an allowed network, or add the address to `allow_from`."
    RequestInvalid "request_invalid" Caller Usage false:
        "What a client said first was no request that this listener takes." ;
        "The detail says what was wrong. Speak what the listener speaks, and ask for `TARGET.GROUP.TENANT.underpass`."
    LoginRequired "login_required" Caller Denied false:
        "The listener serves known callers alone, and this one showed neither a token nor a certificate." ;
        "Give a client token as the proxy's password (any user name), or connect with a client certificate."
    LoginFailed "login_failed" Caller Denied false:
        "The gateway does not know the caller's token, or it was revoked or has expired." ;
        "Make a fresh one: `underpass client-token create --grant T/G/TARGET`."
    LoginLimited "login_limited" Caller Unavailable false:
        "Too many logins from this address have failed." ;
        "Wait a minute, and correct the token before the next try."
    NotGranted "not_granted" Caller Denied false:
        "The caller is not granted that target." ;
        "Make a token whose grants contain it, or grant it to the name of the client's certificate in gateway.yaml."
    CallerRevoked "caller_revoked" Caller Denied false:
        "The caller's rights ended while its stream was open or being opened: its token was revoked or expired, its certificate expired, or \
         gateway.yaml took from its certificate's name the access that it had." ;
        "If the caller should still have access, make a fresh token, renew the certificate, or let its name in again."
    RequestDenied "request_denied" Caller Denied false:
        "The rules of the target (`allow:` in agent.yaml) do not permit the request." ;
        "The detail names what the nearest rule did not allow. Ask for what is permitted, or add a rule; `underpass agent check --explain` \
         tries one."
    RequestPath "request_path" Caller Usage false:
        "The request's path can be read in more than one way: an encoded slash or dot, a dot segment, an empty segment or the like." ;
        "Send the path in its plain form; the detail says what is wrong with it. No rule can permit it."
    BodyTooLarge "body_too_large" Caller Denied false:
        "The request's body is larger than the rule that permits the request allows." ;
        "Send less, or raise `max_body` of the rule in agent.yaml."
    UpgradeDenied "upgrade_denied" Caller Denied false:
        "The request wants another protocol on its connection (WebSocket, say), which the rules of the target do not permit." ;
        "If that is meant, set `upgrade: true` on the rule in agent.yaml."
    TlsToHttpTarget "tls_to_http_target" Caller Usage false:
        "A client began TLS inside the tunnel, to a target of kind http: the agent reads its requests, so it must be able to." ;
        "Speak plain HTTP (http://) to it: the tunnel is encrypted, and the agent speaks TLS with the target."
    ResponseTimeout "response_timeout" Target Unavailable false:
        "The target took the request and did not begin its answer within `response_timeout`." ;
        "Look into the target's own log, or raise `limits.response_timeout` of the target."
    ResponseInvalid "response_invalid" Target Unavailable false:
        "What the target answered is no HTTP, or its head is too long, or it switched to a protocol that was not asked for." ;
        "Check that the target's address leads to its HTTP port; the detail says what was wrong."
    LdapInvalid "ldap_invalid" Caller Usage false:
        "What a client said to a target of kind ldap is no LDAP, or a message that is too large or too deep." ;
        "The detail says what was wrong. Speak LDAP in the clear inside the tunnel, which is encrypted; the agent speaks TLS with the directory."
    DirectoryInvalid "directory_invalid" Target Unavailable false:
        "What the directory answered is no LDAP, or no answer to what it was asked." ;
        "The detail says what was wrong. Check that the target's address leads to a directory; look into its own log."
    TargetBusy "target_busy" Target Unavailable false:
        "All connections that a stream may have to the target carry requests without an answer." ;
        "Wait, or make the target answer sooner."
    SearchTimeout "search_timeout" Target Unavailable false:
        "The directory had not ended the search when its `time_limit` was over." ;
        "Narrow the filter or the base, ask for indexed attributes, or give the search more time."
    SearchTooLarge "search_too_large" Caller Usage false:
        "What the search has found is too large for one JSON document." ;
        "Ask with `Accept: application/jsonl`, which is of any size, or for fewer attributes, or set `size_limit`."
    ProxyHeader "proxy_header" Caller Config false:
        "A balancer's connection did not begin with a PROXY header, or with a broken one." ;
        "Let the balancer send PROXY protocol version 1 or 2 (haproxy: `send-proxy-v2`), or take it off the listener."
    ClientReset "client_reset" Caller Unavailable false:
        "The client reset the connection in the middle." ;
        "Nothing on this side; look into the client."
    StreamCut "stream_cut" Network Unavailable false:
        "An open stream was cut in the middle: by the target, by the agent, by the gateway or by what lies between." ;
        "The gateway's audit says which, in the stream's closing row. Connecting again makes a new stream."
    IdleTimeout "idle_timeout" Agent Unavailable false:
        "No byte flowed for the `idle_timeout` of the target, or of the listener." ;
        "Raise `idle_timeout` (the target's is in its `limits`), or send keep-alives in the protocol."
    DrainDeadline "drain_deadline" Gateway Cut false:
        "The stream was still open when the drain's deadline passed." ;
        "Raise `drain.timeout` if such streams should live longer."
    TargetRemoved "target_removed" Agent Config false:
        "A reload removed or changed the target; its streams were closed." ;
        "Open the stream anew if the target still exists."
    Revoked "revoked" Gateway Denied false:
        "The agent's certificate was revoked." ;
        "Enroll the agent again with a fresh token if the revocation was a mistake."
    Stopping "stopping" Gateway Unavailable true:
        "The process is shutting down; of a session: one of its ends has closed it in good order." ;
        "Try again; another instance or the restarted one answers."

    GatewayDnsFailed "gateway_dns_failed" Network Unavailable false:
        "The gateway's name does not resolve." ;
        "Check the endpoint (in agent.yaml, or that a client's token was made for) and the host's resolver; behind a proxy set HTTPS_PROXY, or \
         `proxy.url` in agent.yaml, then the proxy resolves it."
    GatewayRefused "gateway_refused" Network Unavailable false:
        "Nothing listens at the gateway's address, or a firewall rejects the connection." ;
        "Check that the gateway runs and that outbound TCP to its port is allowed."
    GatewayUnreachable "gateway_unreachable" Network Unavailable false:
        "There is no route to the gateway." ;
        "Check the host's network and firewall; if the site needs a proxy, set HTTPS_PROXY, or `proxy.url` in agent.yaml."
    GatewayTimeout "gateway_timeout" Network Unavailable false:
        "The gateway did not answer in time; packets may be dropped." ;
        "Check that outbound TCP to its port is allowed; if the site needs a proxy, set HTTPS_PROXY, or `proxy.url` in agent.yaml."
    ProxyUnreachable "proxy_unreachable" Network Unavailable false:
        "The HTTP proxy itself does not answer." ;
        "Check HTTPS_PROXY, or `proxy.url` in agent.yaml, and that the proxy runs."
    ProxyAuthRequired "proxy_auth_required" Network Denied false:
        "The HTTP proxy wants other credentials (407)." ;
        "Put them into HTTPS_PROXY (`http://USER:PASSWORD@HOST:PORT`), or set `proxy.username` and `proxy.password` (a reference to a file) \
         in agent.yaml; only Basic is spoken."
    ProxyDenied "proxy_denied" Network Denied false:
        "The HTTP proxy forbids the connection (403)." ;
        "Ask its administrators to allow CONNECT to the gateway's name and port."
    ProxyBadGateway "proxy_bad_gateway" Network Unavailable false:
        "The HTTP proxy could not reach the gateway (502, 503 or 504)." ;
        "Check that the proxy may reach and resolve the gateway's name."
    ProxyProtocol "proxy_protocol" Network Unavailable false:
        "The HTTP proxy answered CONNECT with something else." ;
        "Check that HTTPS_PROXY, or `proxy.url` in agent.yaml, names a proxy and its port; the detail quotes the answer."
    TlsIntercepted "tls_intercepted" Network Denied false:
        "Something between agent and gateway presents its own certificate: TLS inspection, or a wrong server." ;
        "Exempt the gateway's name from inspection. Importing the inspector's CA does not help: only the pinned root counts."
    TlsPlaintext "tls_plaintext" Network Unavailable false:
        "The other side does not speak TLS." ;
        "Check the endpoint's port; a captive portal or a plain HTTP service may answer there."
    TlsFailed "tls_failed" Network Unavailable false:
        "The TLS handshake failed." ;
        "The detail names the reason; a middlebox that allows only older TLS versions looks like this too."
    GatewayName "gateway_name" Gateway Denied false:
        "The gateway's certificate is of our PKI but not for the name that was dialled." ;
        "Add the endpoint to `gateway.endpoints` in gateway.yaml, or correct it in agent.yaml."
    GatewayIdentity "gateway_identity" Gateway Denied false:
        "The certificate is of our PKI but not a gateway's of this trust domain." ;
        "Check which host the endpoint names; if it is the right one, its state directory was mixed up."
    CertificateExpired "certificate_expired" Agent Denied false:
        "A certificate is outside its validity, or this host's clock is wrong." ;
        "Compare the clock with the times in the detail; enroll again if it has really expired."
    TrustChanged "trust_changed" Agent Denied false:
        "The root in the agent's state directory is another than the one that the session was begun on." ;
        "Nothing: the agent dials anew and trusts the new root alone. If nobody replaced root.pem, find out who did."
    CertificateRefused "certificate_refused" Agent Denied false:
        "The gateway refused this agent's certificate." ;
        "It may be revoked, expired or of another PKI: enroll again with a fresh token."
    UpgradeRefused "upgrade_refused" Gateway Unavailable false:
        "The gateway (or something in front of it) refused the WebSocket upgrade." ;
        "Check that the endpoint reaches the gateway itself: a proxy that terminates TLS or HTTP cannot be in between."
    ProtocolUnsupported "protocol_unsupported" Agent Unavailable false:
        "Agent and gateway have no protocol version in common." ;
        "Upgrade the older of the two; the detail names both ranges."
    ProtocolViolation "protocol_violation" Gateway Unavailable false:
        "The peer broke the protocol." ;
        "Compare the versions of agent and gateway; if they match, report a defect or look for an attacker."
    LinkDead "link_dead" Network Unavailable false:
        "Nothing was received for 5 s on an open connection, or for 4 s in which something sent went unanswered; or nothing that was sent got \
         through for 4 s, though the other side was heard." ;
        "Nothing: the agent reconnects. If it repeats, look for a firewall or NAT that drops idle or large packets."
    AgentDisabled "agent_disabled" Gateway Denied false:
        "The gateway's operator has disabled this agent, its group or its tenant." ;
        "Nothing on the agent's host: it tries again by itself. The operator lets it in with `underpass agents enable NAME`."
    AgentNotServing "agent_not_serving" Agent Unavailable true:
        "The agent's connection stands, but the agent does not answer a stream to its own echo." ;
        "Look at the agent's host and log: is the process stopped, starved or stuck? Restart it if so; the gateway asks again by itself."
    LinkClosed "link_closed" Network Unavailable false:
        "The connection was closed, by the other side or on the way, without a word of why." ;
        "Nothing: the agent reconnects. If the other side closed it, its log says why."
    SameGateway "same_gateway" Agent Unavailable false:
        "Two endpoints lead to the same gateway instance; one session is enough." ;
        "Nothing; the second endpoint is tried again in case the instances become two."
    NotHere "not_here" Network Unavailable false:
        "A further lane, or one that takes up a broken one, reached a gateway process that does not have its session: the gateway was restarted, or another one \
         answers at its address." ;
        "Nothing: the session goes on with the lanes it has, or the agent begins a new one. If no gateway was restarted, there are several behind one address: \
         set `gateway.direct_address` in gateway.yaml."
    ResumeExpired "resume_expired" Network Unavailable false:
        "A session's connection broke and could not be taken up again within `resume_window`; its streams were reset." ;
        "Look at what lies between agent and gateway, or whether the agent's process ended. A longer `gateway.resume_window` in gateway.yaml waits longer."
    LaneRefused "lane_refused" Agent Denied false:
        "A further lane, or one that takes up a broken one again, did not prove that it belongs to the session that it named." ;
        "Nothing if it was once: the agent begins a new session. If it repeats, somebody replays what this agent sent: look for its source."
    SessionLanes "session_lanes" Agent Unavailable false:
        "The session has its lanes, or its agent has asked for too many in a minute." ;
        "Nothing: the session goes on with the lanes it has. `limits.max_lanes` in gateway.yaml is how many it may have."
    AgentSessions "agent_sessions" Agent Unavailable false:
        "This agent has, or begins, more sessions with this gateway than one agent may." ;
        "Look for clones of its machine: each agent needs an enrollment of its own. If its key was stolen, revoke it."
    DuplicateIdentity "duplicate_identity" Agent Unavailable false:
        "Two processes hold one agent's identity at the same time: a cloned machine, or a stolen key." ;
        "Find both by their addresses in `underpass agents list`. Enroll the clone under its own name; if the key was stolen, revoke it."

    TokenInvalid "token_invalid" Caller Usage false:
        "The text is no token of the kind that is wanted here." ;
        "Copy the whole line that `underpass token create` (for an agent) or `underpass client-token create` printed."
    TokenExpired "token_expired" Caller Denied false:
        "The enrollment token has expired." ;
        "Make a fresh one: `underpass token create --tenant T --group G`."
    TokenRefused "token_refused" Caller Denied false:
        "The gateway does not know the token, or another key has already used it." ;
        "Make a fresh one; if nobody should have used it, revoke the agent that did: `underpass agents list`."
    TokenPin "token_pin" Caller Denied false:
        "The token's pin is not that of the root built into this binary." ;
        "Use a token of the vendor that this binary was built for."
    EnrollLimited "enroll_limited" Caller Unavailable false:
        "Too many enrollment attempts from this address." ;
        "Wait a minute."
    HandshakeLimited "handshake_limited" Caller Unavailable false:
        "Too many connections from this address wait for their handshake at the same time." ;
        "Nothing: agents try again. If many sit behind one address, raise `limits.max_handshakes` in gateway.yaml: one has an eighth."
    CsrInvalid "csr_invalid" Caller Denied false:
        "The certificate signing request was refused." ;
        "Only an ECDSA P-256 key with a valid self-signature is taken; use `underpass agent enroll`."
    EnrollRefused "enroll_refused" Gateway Unavailable false:
        "The gateway could not enroll the agent." ;
        "See the gateway's log; the token is not used up and may be tried again."
    AgentUnknown "agent_unknown" Caller Usage false:
        "No agent of that name is enrolled, or there is no such group or tenant." ;
        "See `underpass agents list`."
    ClientTokenUnknown "client_token_unknown" Caller Usage false:
        "There is no client token of that name or id." ;
        "See `underpass client-token list`."
    ClientTokenExists "client_token_exists" Caller Usage false:
        "A client token of that name is in use." ;
        "Choose another `--name`, or revoke that one first: `underpass client-token revoke NAME`."
    CodeUnknown "code_unknown" Caller Usage false:
        "There is no such code." ;
        "`underpass explain` without a code lists them all."

    Usage "usage" Caller Usage false:
        "The command line is wrong." ;
        "See `underpass help`."
    ConfigInvalid "config_invalid" Caller Config false:
        "The configuration is wrong." ;
        "The message names file, line and column; `underpass gateway check` and `underpass agent check` try a file."
    ConfigUnreadable "config_unreadable" Caller Config false:
        "A configuration file or a file that it names cannot be read." ;
        "Check the path and the permissions."
    FilePermissions "file_permissions" Caller Config false:
        "A file or directory that must be trusted can be changed or read by others." ;
        "`chmod go-w` for configuration and directories, `chmod 600` for keys and secrets; no symbolic links."
    SecretMissing "secret_missing" Caller Config false:
        "A secret that the configuration refers to is not there." ;
        "Create the file or set the variable that the reference names."
    ListenerOpen "listener_open" Caller Config false:
        "A client listener off loopback has neither authentication nor `allow_from`." ;
        "Add `allow_from` with the networks that may connect, or listen on 127.0.0.1."
    ListenFailed "listen_failed" Caller Unavailable false:
        "An address cannot be listened on." ;
        "Check whether another process has it, and whether ports below 1024 are allowed to this user."
    StateExists "state_exists" Caller Config false:
        "The state directory is already in use; nothing was overwritten." ;
        "Choose another `--state-dir`, or remove the old state yourself if you mean to lose it."
    StateMissing "state_missing" Caller Config false:
        "There is no identity in the state directory yet." ;
        "Run `underpass gateway init` or `underpass agent enroll` first, or give the right `--state-dir`."
    StateInvalid "state_invalid" Gateway Config false:
        "A file in the state directory is damaged or does not belong to the others." ;
        "Restore the state directory from a backup, or enroll again."
    StoreFailed "store_failed" Gateway Unavailable false:
        "The gateway's database cannot be read or written." ;
        "Check the disk; the message says what the database reported."
    StoreNewer "store_newer" Gateway Config false:
        "The database was written by a newer version." ;
        "Run that version or a newer one; nothing was changed."
    NotRunning "not_running" Caller Unavailable false:
        "No gateway or agent answers on the admin socket of the state directory." ;
        "Start it, or give the right `--state-dir`."
    NotAnswering "not_answering" Caller Unavailable false:
        "The gateway or agent has its admin socket open and gives no answer: it is stopped, starved or stuck." ;
        "Look at its process and its log. `kill -CONT` lets one that was stopped go on; restart one that stays so."
    CertificateExpiring "certificate_expiring" Agent Unavailable false:
        "The agent's certificate is in the last third of its life." ;
        "Enroll again with a fresh token; the running agent takes the new certificate at its next connection."
    IssuerExpiring "issuer_expiring" Gateway Unavailable false:
        "The issuing CA ends soon; certificates can't outlive it." ;
        "Plan a new `underpass gateway init` and the agents' enrollment before that date."
    StateUnwritable "state_unwritable" Caller Unavailable false:
        "A file of the state directory cannot be written; what was there before is untouched." ;
        "Check the disk's space, and that the directory belongs to the user that runs this."
    Internal "internal" Gateway Internal false:
        "A defect of Underpass, or an error of the operating system that it has no name for." ;
        "Report it with the message and the version."
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One that only a newer program knows counts as `internal`, as on the wire.
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.parse().unwrap_or(Self::Internal))
    }
}

impl FromStr for Code {
    type Err = Failure;
    fn from_str(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .iter()
            .find(|code| code.as_str() == name)
            .copied()
            .ok_or_else(|| Failure::new(Self::CodeUnknown, format!("`{}`", super::id::printable(name, 64))))
    }
}

/// An error that a person reads: its code, and what failed on what and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Failure {
    /// The stable part.
    pub code: Code,
    /// What failed, on what, why. Never a secret, always printable.
    pub detail: String,
}

impl Failure {
    /// An error with its detail.
    pub fn new(code: Code, detail: impl fmt::Display) -> Self {
        Self { code, detail: super::id::printable(&detail.to_string(), 2000) }
    }

    /// The same error, said to have happened during `what`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { code: self.code, detail: format!("{what}: {}", self.detail) }
    }
}

/// Gives any error a code and says what was being done.
pub trait OrFail<T> {
    /// Turns an error into a [`Failure`] with `code`, prefixed by `what`.
    ///
    /// # Errors
    /// The error it was given.
    fn or_fail(self, code: Code, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, code: Code, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, format_args!("{what}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_name_a_cause_and_a_remedy() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>(), Ok(*code));
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
            assert!(code.cause().ends_with('.') && code.remedy().ends_with('.'), "{code}");
        }
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn an_unknown_code_is_a_usage_error() {
        assert_eq!("nonsense".parse::<Code>().unwrap_err().code.exit(), Exit::Usage);
    }
}
