//! Real servers, networks and hostile peers for the tests. Each starts on free ports, waits until it answers, and ends with
//! its value. Refuses to know Underpass, except for `certificates` and `peer`, which play its agents and gateways.

pub(crate) mod balancer;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod dns;
pub(crate) mod filesystem;
pub(crate) mod forwarder;
pub(crate) mod group;
pub(crate) mod haproxy;
pub(crate) mod hostile_directory;
pub(crate) mod ldap_client;
pub(crate) mod netns;
pub(crate) mod nginx;
pub(crate) mod origin;
pub(crate) mod peer;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod routed;
pub(crate) mod samba;
pub(crate) mod silent;
pub(crate) mod slapd;
pub(crate) mod squid;
pub(crate) mod sshd;
pub(crate) mod vendor;
