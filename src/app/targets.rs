//! From the configured targets to what the agent's policy takes: certificates are read, rules put in force. Used at the start, at a
//! reload and by `check`. It refuses to know what is done with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::policy::{HttpService, LdapService, Policy, Service, TargetLimits, TargetSpec};
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Host;
use crate::base::id::{Name, TargetId};
use crate::config::{AgentConfig, Allow, Kind, Scheme, SendProxy, Target};
use crate::pki::identity::Identity;
use crate::pki::tls::target::{TargetTls, TargetTlsFiles};
use crate::rules;
use crate::wire::name::label_of;

/// The policy of a configuration.
///
/// # Errors
/// What the files of a target's TLS report, naming the target.
pub fn policy(config: &AgentConfig) -> Result<Policy, Failure> {
    let spec = |(name, target): (&Name, &Target)| {
        let spec = spec(target).map_err(|failure| failure.context(format_args!("`targets.{name}`")))?;
        Ok((name.clone(), spec))
    };
    Ok(Policy::new(config.targets.iter().map(spec).collect::<Result<BTreeMap<_, _>, Failure>>()?))
}

/// Checks that every target of kind http has a host name below a gateway's domain. One without is reached by path all the same, so
/// only who asks for a check is told.
///
/// # Errors
/// `config_invalid`, naming the target.
pub fn check_labels(config: &AgentConfig, identity: &Identity) -> Result<(), Failure> {
    let Some(agent) = identity.agent() else { return Ok(()) };
    for (name, _) in config.targets.iter().filter(|(_, target)| target.kind == Kind::Http) {
        let id = TargetId { group: agent.group.clone(), target: name.clone() };
        if label_of(&id).is_none() {
            let joined = format!("{}--{}--{}", id.target, id.group.group, id.group.tenant);
            let detail = format_args!(
                "`targets.{name}`: its host name would begin with `{joined}`, longer than a label's 63 characters"
            );
            return Err(Failure::new(Code::ConfigInvalid, detail));
        }
    }
    Ok(())
}

fn spec(target: &Target) -> Result<TargetSpec, Failure> {
    let limits = TargetLimits {
        max_streams: target.limits.max_streams,
        connect_timeout: target.limits.connect_timeout,
        response_timeout: target.limits.response_timeout,
        idle_timeout: target.limits.idle_timeout,
    };
    let service = match target.kind {
        Kind::Tcp => Service::Tcp { send_proxy: target.send_proxy == SendProxy::V2 },
        Kind::Http => Service::Http(HttpService {
            tls: (target.address.scheme == Some(Scheme::Https)).then(|| tls(target)).transpose()?,
            http2: target.http2,
            rules: Arc::new(http_rules(target)),
        }),
        Kind::Ldap => Service::Ldap(LdapService {
            alternates: target.alternates.iter().map(|address| address.at.clone()).collect(),
            tls: tls(target)?,
            start_tls: target.start_tls,
            rules: Arc::new(ldap_rules(target)),
        }),
    };
    Ok(TargetSpec { address: target.address.at.clone(), allow_loopback: target.allow_loopback, service, limits })
}

pub(super) fn http_rules(target: &Target) -> rules::http::Rules {
    match &target.allow {
        Some(Allow::Http(rules)) => rules.clone(),
        _ => rules::http::Rules::any(),
    }
}

pub(super) fn ldap_rules(target: &Target) -> rules::ldap::Rules {
    match &target.allow {
        Some(Allow::Ldap(rules)) => rules::ldap::Rules::clone(rules),
        _ => rules::ldap::Rules::default(),
    }
}

fn tls(target: &Target) -> Result<TargetTls, Failure> {
    let section = target.tls.clone().unwrap_or_default();
    let server_name = section.server_name.as_deref().map(Host::parse).transpose()?;
    TargetTls::load(&TargetTlsFiles { ca_file: section.ca_file, server_name, identity: section.cert.zip(section.key) })
}
