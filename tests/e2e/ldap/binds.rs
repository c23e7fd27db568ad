//! Logging in: where it may pass, as whom, and what is never a success. Refuses to know what may be read then.

use super::Rules;
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::slapd::{SUFFIX, password, person};
use crate::harness::site::http_get;
use crate::harness::{SOON, eventually, free_port, loopback};
use crate::http::Web;

const WHO_AM_I: &str = "1.3.6.1.4.1.4203.1.11.3";

#[tokio::test]
async fn d9_a_bind_passes_where_it_is_allowed_and_what_is_denied_is_recorded_and_counted() {
    let site = Rules::new(&[("hr", ""), ("login", "operations: [search, bind]")]).await;
    let (name, right) = (person(7), password(7));
    let as_seven = |password| vec!["-D", &name, "-w", password, "-b", SUFFIX, "-s", "base", "dn"];
    site.to("login").search(&as_seven(&right)).await.ok();
    site.to("login").search(&as_seven("wrong")).await.exits(49);
    // Not 49, as if the password were wrong.
    let refused = site.to("hr").search(&as_seven(&right)).await.exits(53);
    assert!(refused.stderr.contains("bind is not among this target's operations"), "{}", refused.stderr);
    site.denied("hr", "operations").await;
    assert!(site.web.agent.audit().iter().all(|row| !row.to_string().contains(&right)));
}

#[tokio::test]
async fn what_is_denied_is_counted_by_target_and_rule() {
    let mut site = Rules::new(&[("hr", "")]).await;
    let (port, keys) = (loopback(free_port()), super::ldaps(site.slapd.ldaps(), &site.vendor, ""));
    site.web.agent.configure(&format!("{}metrics: {{listen: \"{port}\"}}\n", Web::targets(&[("hr", keys)])));
    site.web.agent.start().await;
    site.to("hr").search(&["-b", SUFFIX, "(userPassword=*)"]).await.exits(50);
    site.to("hr").search(&["-b", SUFFIX, "(USERPASSWORD=x)"]).await.exits(50);
    let line = "underpass_ldap_denials_total{target=\"hr\",rule=\"deny_attributes\"} 2";
    let counted = async || http_get(port, "/metrics").await.filter(|(_, text)| text.contains(line)).map(drop);
    eventually("the denials are counted", SOON, counted).await;
}

#[tokio::test]
async fn e7_a_name_with_an_empty_password_is_never_a_success() {
    let site = Rules::new(&[("login", "operations: [search, bind]")]).await;
    let name = person(7);
    let without_password = ["-D", &name, "-w", "", "-b", SUFFIX, "-s", "base", "dn"];
    // The directory itself takes whoever has the name for nobody, and calls it a success.
    site.slapd.direct().search(&without_password).await.ok();
    site.to("login").search(&without_password).await.exits(53);
    site.denied("login", "empty_password").await;
    let script = format!(
        "connection = ldap3.Connection(server, authentication=ldap3.SASL, sasl_mechanism='PLAIN', \
         sasl_credentials=(None, 'u0007', '{}'))\n\
         print(connection.bind(), connection.result['result'])\n",
        password(7)
    );
    assert_eq!(site.to("login").python(&script).await.ok().trim(), "False 7");
    site.denied("login", "sasl").await;
}

#[tokio::test]
async fn e7_a_bind_as_nobody_drops_who_was_logged_in() {
    let allow = format!("operations: [search, bind, extended], extended: [\"{WHO_AM_I}\"]");
    let site = Rules::new(&[("login", &allow), ("hr", "")]).await;
    let script = format!(
        "connection = ldap3.Connection(server, '{}', '{}', auto_bind=True)\n\
         print(connection.extend.standard.who_am_i())\n\
         connection.user = connection.password = None\n\
         connection.rebind(authentication=ldap3.ANONYMOUS)\n\
         print(connection.result['result'], repr(connection.extend.standard.who_am_i()))\n",
        person(7),
        password(7)
    );
    let said = site.to("login").python(&script).await.ok();
    assert!(["0 None", "0 ''"].map(|nobody| format!("dn:{}\n{nobody}", person(7))).contains(&said.trim().to_owned()), "{said}");
    // As nobody from the beginning, where no bind may pass.
    let script = "connection = ldap3.Connection(server, auto_bind=True)\nprint(connection.extend.standard.who_am_i(), connection.result)";
    let said = site.to("hr").python(script).await.ok();
    assert!(said.contains("'result': 53"), "{said}");
    site.denied("hr", "operations").await;
}

#[tokio::test]
async fn e7_no_tls_begins_inside_the_tunnel_but_the_agents_own() {
    let site = Rules::new(&[("hr", "")]).await;
    let client = Directory::start_tls(site.web.raw("hr"), &site.vendor);
    let refused = client.search(&["-b", SUFFIX, "-s", "base"]).await;
    assert!(!refused.status.success() && refused.stderr.contains("Server is unwilling to perform (53)"), "{}", refused.stderr);
    site.denied("hr", "start_tls").await;
    // LDAPS into the tunnel: a clear end.
    let client = Directory::tls(site.web.raw("hr"), &site.vendor);
    assert!(!client.search(&["-b", SUFFIX, "-s", "base"]).await.status.success());
    let agents = site.web.agent.audited("closed", |row| row["code"] == "ldap_invalid").await;
    let gateways = site.web.gateway.audited("closed", |row| row["request"] == agents["request"]).await;
    for row in [&agents, &gateways] {
        assert!(row["target"].as_str().unwrap().ends_with("hr"), "{row}");
    }
    // The agent says farewell to the client and ends the stream; its reason may reach the gateway after that.
    assert!(gateways["code"].is_null() || gateways["code"] == "ldap_invalid", "{gateways}");
}
