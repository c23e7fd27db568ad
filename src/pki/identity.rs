//! Who a leaf certificate says its holder is: the role URI, the serial and the validity. Refuses to decide whether the certificate
//! may be believed: that is the verifiers' part.

mod serial;
mod trust_domain;

use std::fmt;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

pub use self::serial::Serial;
pub use self::trust_domain::TrustDomain;
use crate::base::code::{Code, Failure};
use crate::base::id::{AgentId, GroupId, Name, printable};

/// What the holder of a leaf certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `spiffe://<trust-domain>/gateway/<id>`, with serverAuth.
    Gateway {
        /// The PKI it belongs to.
        trust_domain: TrustDomain,
        /// Its name.
        id: Name,
    },
    /// `spiffe://<trust-domain>/tenant/<t>/group/<g>/agent/<a>`, with clientAuth.
    Agent {
        /// The PKI it belongs to.
        trust_domain: TrustDomain,
        /// Its full name.
        agent: AgentId,
    },
}

impl Role {
    /// Parses a role URI. There is one spelling: no percent-encoding, port, query, trailing slash or upper case.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let parts: Vec<&str> = uri.strip_prefix("spiffe://")?.split('/').collect();
        let name = |text: &str| Name::parse(text).ok();
        match parts.as_slice() {
            [domain, "gateway", id] => Some(Self::Gateway { trust_domain: domain.parse().ok()?, id: name(id)? }),
            [domain, "tenant", tenant, "group", group, "agent", agent] => {
                let group = GroupId { tenant: name(tenant)?, group: name(group)? };
                Some(Self::Agent { trust_domain: domain.parse().ok()?, agent: AgentId { group, agent: name(agent)? } })
            }
            _ => None,
        }
    }

    /// The PKI it belongs to.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            Self::Gateway { trust_domain, .. } | Self::Agent { trust_domain, .. } => trust_domain,
        }
    }
}

/// The role URI.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway { trust_domain, id } => write!(f, "spiffe://{trust_domain}/gateway/{id}"),
            Self::Agent { trust_domain, agent: AgentId { group, agent } } => {
                write!(f, "spiffe://{trust_domain}/tenant/{}/group/{}/agent/{agent}", group.tenant, group.group)
            }
        }
    }
}

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who its holder is.
    pub role: Role,
    /// Its serial number, unique under its issuing CA.
    pub serial: Serial,
    /// Not valid before.
    pub not_before: OffsetDateTime,
    /// Not valid after.
    pub not_after: OffsetDateTime,
}

impl Identity {
    /// Reads a leaf certificate: exactly one extended key usage, exactly one URI, which is a role that the usage fits. An agent's has
    /// no other name; a gateway's may have DNS names and addresses.
    ///
    /// # Errors
    /// `certificate_refused`, saying what is not as it must be. No certificate gets half an identity.
    pub fn of_leaf(der: &CertificateDer<'_>) -> Result<Self, Failure> {
        let certificate = parse(der)?;
        let role = role_of(&certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            role,
            serial: Serial::from_be_bytes(certificate.raw_serial())?,
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        })
    }

    /// The agent, if it is one.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentId> {
        match &self.role {
            Role::Agent { agent, .. } => Some(agent),
            Role::Gateway { .. } => None,
        }
    }
}

/// Parses a certificate of version 3 without trailing bytes.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Failure> {
    match X509Certificate::from_der(der) {
        Ok((rest, certificate)) if rest.is_empty() && certificate.version() == X509Version::V3 => Ok(certificate),
        Ok(_) => Err(refused("it is not of version 3, or followed by other bytes")),
        Err(error) => Err(refused(format_args!("it cannot be parsed: {error}"))),
    }
}

/// The DNS names and addresses of a certificate in the order of the certificate, as text.
pub(super) fn hosts_of(der: &CertificateDer<'_>) -> Result<Vec<String>, Failure> {
    let certificate = parse(der)?;
    let names = certificate.subject_alternative_name().map_err(refused)?;
    let hosts = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    });
    Ok(hosts.collect())
}

fn address(octets: &[u8]) -> Option<String> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|octets| std::net::Ipv4Addr::from(octets).to_string());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| std::net::Ipv6Addr::from(octets).to_string());
    v4().or_else(|_| v6()).ok()
}

fn role_of(certificate: &X509Certificate<'_>) -> Result<Role, Failure> {
    let names =
        certificate.subject_alternative_name().map_err(refused)?.ok_or_else(|| refused("it has no alternative name"))?;
    let mut role = None;
    let mut others = 0;
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => {
                let parsed = Role::parse(uri).ok_or_else(|| refused(format_args!("`{}` is no role", printable(uri, 200))))?;
                if role.replace(parsed).is_some() {
                    return Err(refused("it has two role URIs"));
                }
            }
            GeneralName::DNSName(_) | GeneralName::IPAddress(_) => others += 1,
            _ => return Err(refused("it has an alternative name that is no URI, DNS name or address, or is undecodable")),
        }
    }
    let role = role.ok_or_else(|| refused("it has no role URI"))?;
    match only_usage(certificate)? {
        Usage::Server if matches!(role, Role::Gateway { .. }) => Ok(role),
        Usage::Client if matches!(role, Role::Agent { .. }) && others == 0 => Ok(role),
        usage => Err(refused(format_args!("its {usage:?} usage or further names do not fit {role}"))),
    }
}

#[derive(Debug)]
enum Usage {
    Server,
    Client,
}

fn only_usage(certificate: &X509Certificate<'_>) -> Result<Usage, Failure> {
    let usages = certificate.extended_key_usage().map_err(refused)?.ok_or_else(|| refused("it has no extended key usage"))?;
    match usages.value {
        ExtendedKeyUsage {
            any: false,
            server_auth,
            client_auth,
            code_signing: false,
            email_protection: false,
            time_stamping: false,
            ocsp_signing: false,
            other,
        } if other.is_empty() && server_auth != client_auth => Ok(if *server_auth { Usage::Server } else { Usage::Client }),
        _ => Err(refused("its extended key usage is not exactly one of clientAuth and serverAuth")),
    }
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::new(Code::CertificateRefused, format_args!("the certificate has no acceptable identity: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::hostile::{self, Authority};

    #[test]
    fn role_uris_round_trip() {
        for uri in ["spiffe://acme.example/gateway/gw1", "spiffe://d/tenant/acme/group/dc1/agent/a-1"] {
            assert_eq!(Role::parse(uri).unwrap().to_string(), uri);
        }
    }

    #[test]
    fn s2_a_role_has_one_spelling() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://d",
            "spiffe://d/",
            "spiffe://d/gateway",
            "spiffe://d/gateway/",
            "spiffe://d/gateway/gw1/",
            "spiffe://d/gateway/gw1?x",
            "spiffe://d/gateway/gw1#x",
            "spiffe://d/gateway/GW1",
            "spiffe://D/gateway/gw1",
            "SPIFFE://d/gateway/gw1",
            "spiffe://d:443/gateway/gw1",
            "spiffe://u@d/gateway/gw1",
            "spiffe://d//gateway/gw1",
            "spiffe:///gateway/gw1",
            "https://d/gateway/gw1",
            "spiffe://d/tenant/a/group/b/agent/c/d",
            "spiffe://d/tenant/a/group/b/agent/%63",
            "spiffe://d/tenant/a/group/../agent/c",
            "spiffe://d/tenant/a/agent/b/group/c",
            "spiffe://d/tenant/a/group/b",
        ] {
            assert_eq!(Role::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn a_leaf_says_who_its_holder_is() {
        let ca = Authority::fresh("acme.example");
        let leaf = ca.agent("acme/dc1/a1").chain[0].clone();
        let identity = Identity::of_leaf(&leaf).unwrap();
        assert_eq!(identity.agent().unwrap().to_string(), "acme/dc1/a1");
        assert_eq!(identity.role.trust_domain().as_str(), "acme.example");
        assert!(identity.not_before < identity.not_after);
    }

    #[test]
    fn s2_a_leaf_without_one_clear_role_has_no_identity() {
        let ca = Authority::fresh("acme.example");
        for hostile in hostile::without_one_role(&ca) {
            let refusal = Identity::of_leaf(&hostile.chain[0]).unwrap_err();
            assert_eq!(refusal.code, Code::CertificateRefused, "{}", hostile.name);
        }
        for der in [vec![], vec![0x30, 0], b"nonsense".to_vec()] {
            assert_eq!(Identity::of_leaf(&CertificateDer::from(der)).unwrap_err().code, Code::CertificateRefused);
        }
        let mut longer = ca.agent("acme/dc1/a1").chain[0].to_vec();
        longer.push(0);
        assert_eq!(Identity::of_leaf(&CertificateDer::from(longer)).unwrap_err().code, Code::CertificateRefused);
    }
}
