//! LDAP targets end to end: OpenLDAP's tools, Python's ldap3 and raw bytes, through every entry point, to real directories behind the agent
//! and to one that lies. Refuses to know how LDAP is read.

mod binds;
mod directories;
mod hostile;
mod reach;
mod samba;
mod secrets;
mod writes;

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::fixtures::hostile_directory::{self, ber, message, tag};
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::slapd::{PEOPLE, SUFFIX, Slapd, person};
use crate::fixtures::vendor::{NAME, Vendor};
use crate::harness::SOON;
use crate::harness::entries::{Entries, Way};
use crate::http::Web;

/// `kind: ldap` for a directory with a certificate of this vendor, with more keys, each with a comma before it.
pub(crate) fn ldaps(at: SocketAddr, vendor: &Vendor, more: &str) -> String {
    secured(&format!("ldaps://{at}"), vendor, more)
}

/// The same with StartTLS.
fn start_tls(at: SocketAddr, vendor: &Vendor, more: &str) -> String {
    secured(&format!("ldap://{at}"), vendor, &format!(", start_tls: true{more}"))
}

fn secured(url: &str, vendor: &Vendor, more: &str) -> String {
    let ca = vendor.ca();
    format!("kind: ldap, address: \"{url}\", tls: {{ca_file: \"{}\", server_name: {NAME}}}{more}", ca.display())
}

/// OpenLDAP behind an agent, with targets that differ in `allow` alone: the name of each, and what stands in it.
struct Rules {
    vendor: Vendor,
    slapd: Slapd,
    web: Web,
}

impl Rules {
    async fn new(targets: &[(&str, &str)]) -> Self {
        let vendor = Vendor::new();
        let slapd = Slapd::start(&vendor).await;
        let keys = |allow: &str| ldaps(slapd.ldaps(), &vendor, &format!(", allow: {{{allow}}}"));
        let targets: Vec<_> = targets.iter().map(|(name, allow)| (*name, keys(allow))).collect();
        let web = Web::new(&targets).await;
        Self { vendor, slapd, web }
    }

    /// A client's way to a target.
    fn to(&self, target: &str) -> Directory {
        Directory::at(self.web.raw(target))
    }

    /// Waits until the agent's audit has a refusal by that rule at that target.
    async fn denied(&self, target: &str, rule: &str) {
        let is_it = |detail: &str| {
            detail.starts_with(&format!("targets.{target}.allow.{rule}: "))
                || detail.starts_with(&format!("every target of kind ldap: {rule}: "))
        };
        let row = |row: &serde_json::Value| row["target"] == target && is_it(row["detail"].as_str().unwrap_or_default());
        let row = self.web.agent.audited("refused", row).await;
        assert_eq!(row["code"], "request_denied");
    }
}

/// A search for one entry with all that is in it, by hand.
fn asks_for(id: u32, base: &str) -> Vec<u8> {
    let parts = [
        ber(0x04, base),
        // The base alone; no alias followed; no limits; values too.
        vec![0x0a, 1, 0, 0x0a, 1, 0, 0x02, 1, 0, 0x02, 1, 0, 0x01, 1, 0],
        ber(0x87, "objectClass"),
        ber(0x30, ""),
    ];
    message(id, ber(tag::SEARCH, parts.concat()))
}

/// Reads messages up to the one that ends the search with this id.
async fn found(io: &mut (impl AsyncRead + AsyncWrite + Unpin), id: u32) -> Vec<u8> {
    let mut said = Vec::new();
    let end = hostile_directory::done(id);
    // A real directory's ends the same, with lengths in another form.
    let result = &end[end.len() - 7..];
    while !said.ends_with(result) {
        let read = timeout(SOON, io.read_buf(&mut said)).await.expect("a search is answered").unwrap();
        assert_ne!(read, 0, "it ended in the middle: {}", String::from_utf8_lossy(&said));
    }
    said
}

/// The names in what `ldapsearch` has printed.
fn names(ldif: &str) -> usize {
    ldif.lines().filter(|line| line.starts_with("dn:")).count()
}

#[tokio::test]
async fn every_entry_of_openldap_comes_page_by_page_to_its_own_tools_and_to_python() {
    let site = Rules::new(&[("hr", "")]).await;
    let hr = site.to("hr");
    let all =
        hr.search(&["-E", "pr=500/noprompt", "-b", SUFFIX, "(objectClass=inetOrgPerson)", "mail", "jpegPhoto"]).await.ok();
    assert_eq!((names(&all), all.matches("mail: u").count()), (PEOPLE, PEOPLE));
    assert!(all.contains("jpegPhoto:: AP/+gA=="), "bytes are bytes");
    let script = format!(
        "connection = ldap3.Connection(server, auto_bind=True)\n\
         found = connection.extend.standard.paged_search('{SUFFIX}', '(uid=*)', attributes=['uid'], paged_size=700)\n\
         print(sum(1 for entry in found if entry['type'] == 'searchResEntry'))\n\
         group = 'cn=staff,ou=groups,{SUFFIX}'\n\
         connection.search('{SUFFIX}', f'(memberOf={{group}})', attributes=['memberOf'])\n\
         print([(str(entry.entry_dn), entry.memberOf.values) for entry in connection.entries])\n\
         connection.search(group, '(objectClass=*)', attributes=['member'])\n\
         print(len(connection.entries[0].member.values), connection.compare('{}', 'mail', 'u0009@corp.example'))\n",
        person(9)
    );
    let python = hr.python(&script).await.ok();
    let lines: Vec<_> = python.lines().collect();
    // And the service account.
    assert_eq!(lines[0], (PEOPLE + 1).to_string());
    assert_eq!(lines[1].matches("['cn=staff,ou=groups,").count(), 3, "{python}");
    assert_eq!(lines[2], "3 True");
}

#[tokio::test]
async fn a_directory_is_reached_by_connect_by_socks5_and_by_underpass_connect() {
    let vendor = Vendor::new();
    let slapd = Slapd::start(&vendor).await;
    let targets = Web::targets(&[("hr", ldaps(slapd.ldaps(), &vendor, ""))]);
    let entries = Entries::with(&targets, &["hr"], "").await;
    let token = entries.token("ci", "acme/dc1/*", &[]).await;
    for way in [Way::Connect, Way::Socks5, Way::ConnectTls, Way::Certified] {
        let mut io = entries.open(way, "hr", &token.text).await.unwrap();
        io.write_all(&asks_for(1, &person(3))).await.unwrap();
        io.flush().await.unwrap();
        let said = String::from_utf8_lossy(&found(&mut io, 1).await).into_owned();
        assert!(said.contains("u0003@corp.example") && !said.contains("secret-3"), "{way:?}: {said}");
    }
    let (_process, at) = entries.connector(&token, "hr").await;
    let found = Directory::at(at).search(&["-b", &person(4), "mail", "userPassword"]).await.ok();
    assert_eq!(found, format!("dn: {}\nmail: u0004@corp.example\n\n", person(4)));
}
