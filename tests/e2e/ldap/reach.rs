//! How far a search may go: base, scope, limits, filters, controls, operations and other directories. Refuses to know what an entry holds.

use super::{Rules, names};
use crate::fixtures::slapd::{SERVICE, SUFFIX, person};

#[tokio::test]
async fn d9_a_base_is_compared_as_a_name_and_not_as_text() {
    let allow = format!("base: \"ou=people,{SUFFIX}\"");
    let site = Rules::new(&[("people", &allow)]).await;
    let people = site.to("people");
    for base in [
        "ou=people,dc=corp,dc=example",
        "OU = People , DC=CORP,dc=Example",
        "2.5.4.11=people,0.9.2342.19200300.100.1.25=corp,dc=example",
        "ou=\\70eople,dc=corp,dc=example",
        "ou=  people,dc=corp,dc=example",
        "uid=u0001,ou=people,dc=corp,dc=example",
    ] {
        let found = people.search(&["-b", base, "(uid=u0001)", "dn"]).await.ok();
        assert_eq!(found, format!("dn: {}\n\n", person(1)), "{base}");
    }
    for base in [
        "",
        SUFFIX,
        "dc=example",
        "ou=groups,dc=corp,dc=example",
        "cn=ou\\3dpeople\\2cdc\\3dcorp\\2cdc\\3dexample",
        "ou=people\\,dc=corp,dc=example",
        "ou=people,dc=corp,dc=example,dc=example",
        "xou=people,dc=corp,dc=example",
        "ou=people+cn=x,dc=corp,dc=example",
    ] {
        let refused = people.search(&["-b", base, "(objectClass=*)", "dn"]).await.exits(50);
        assert_eq!(names(&refused.stdout), 0, "{base}");
    }
    people.search(&["-b", "no name", "(objectClass=*)", "dn"]).await.exits(34);
    // The root's own entry lies outside too.
    people.search(&["-b", "", "-s", "base", "+"]).await.exits(50);
    people.tool("ldapcompare").args([&format!("cn=staff,ou=groups,{SUFFIX}"), "cn:staff"]).run().await.exits(50);
    site.denied("people", "base").await;
}

#[tokio::test]
async fn d9_an_alias_leads_nowhere_outside_of_the_base() {
    let allow = format!("base: \"ou=people,{SUFFIX}\"");
    let site = Rules::new(&[("people", &allow), ("hr", "")]).await;
    let staff = format!("cn=staff,ou=groups,{SUFFIX}");
    let alias = format!("cn=alias,ou=people,{SUFFIX}");
    let add = format!(
        "dn: {alias}\nchangetype: add\nobjectClass: alias\nobjectClass: extensibleObject\ncn: alias\naliasedObjectName: {staff}\n"
    );
    site.slapd.direct().modify(SERVICE, &add).await.ok();
    for (base, scope) in [(format!("ou=people,{SUFFIX}"), "sub"), (alias, "base")] {
        let follow = ["-a", "always", "-b", &base, "-s", scope, "(objectClass=groupOfNames)", "dn"];
        assert_eq!(site.to("hr").search(&follow).await.ok(), format!("dn: {staff}\n\n"), "{scope}");
        assert_eq!(site.to("people").search(&follow).await.ok(), "", "{scope}");
    }
}

#[tokio::test]
async fn d9_scope_size_filters_and_controls_have_their_limits() {
    let few =
        format!("base: \"ou=people,{SUFFIX}\", scope: one, size_limit: 10, time_limit: 20s, filter_size: 4, filter_depth: 2, ");
    let few = few + "controls: [1.2.840.113556.1.4.319], attributes: [cn, uid, mail]";
    let site = Rules::new(&[("few", &few), ("hr", "")]).await;
    let (few, base) = (site.to("few"), format!("ou=people,{SUFFIX}"));
    few.search(&["-b", &base, "-s", "sub", "(uid=*)"]).await.exits(50);
    site.denied("few", "scope").await;
    let one = async |filter: &str| few.search(&["-b", &base, "-s", "one", filter]).await;
    let found = one("(uid=*)").await.exits(4);
    assert_eq!(names(&found.stdout), 10);
    assert!(found.stdout.contains("\nmail: u0001@") && !found.stdout.contains("sn: "), "{}", found.stdout);
    // Whoever asks for less gets less.
    let less = few.search(&["-z", "3", "-b", &base, "-s", "one", "(uid=*)"]).await.exits(4);
    assert_eq!(names(&less.stdout), 3);
    for (filter, code) in [
        ("(|(uid=u0001)(uid=u0002)(uid=u0003))", 0),
        ("(|(uid=u0001)(uid=u0002)(uid=u0003)(uid=u0004))", 50),
        ("(&(uid=u0001)(!(mail=x)))", 50),
        ("(sn=P0001)", 50),
        ("(&(objectClass=*)(uid=u0001))", 0),
    ] {
        one(filter).await.exits(code);
    }
    for rule in ["filter_size", "filter_depth", "attributes"] {
        site.denied("few", rule).await;
    }
    let with = async |to: &str, control: &str| {
        site.to(to).search(&["-e", control, "-b", &person(1), "-s", "base", "uid"]).await.code()
    };
    // Critical and not listed, not critical: left out, critical and listed by default.
    assert_eq!(with("few", "!manageDSAit").await, 12);
    assert_eq!(with("few", "manageDSAit").await, 0);
    assert_eq!(with("hr", "!manageDSAit").await, 0);
    assert_eq!(with("hr", "!1.2.3.4.5").await, 12);
    assert_eq!(with("hr", "!authzid=dn:cn=x").await, 12);
    site.denied("few", "controls").await;
    let paged = few.search(&["-E", "!pr=4/noprompt", "-b", &base, "-s", "one", "(uid=u000*)"]).await;
    assert!(names(&paged.stdout) >= 4, "{}{}", paged.stdout, paged.stderr);
}

#[tokio::test]
async fn d9_extended_operations_pass_by_their_oids_and_other_directories_are_not_told_of() {
    let allow = "operations: [search, extended], extended: [1.3.6.1.4.1.4203.1.11.3], referrals: pass";
    let site = Rules::new(&[("hr", ""), ("more", allow)]).await;
    let whoami = async |target: &str| site.to(target).tool("ldapwhoami").run().await;
    assert_eq!(whoami("more").await.ok().trim(), "anonymous");
    let refused = whoami("hr").await;
    assert!(refused.stdout.contains("extended is not among this target's operations"), "{}", refused.stdout);
    // Another one: to change a password.
    let passwd = site.to("more").tool("ldappasswd").args(["-s", "new", &person(1)]).run().await;
    assert!(passwd.stdout.contains("1.3.6.1.4.1.4203.1.11.1 is not listed"), "{}", passwd.stdout);
    site.denied("more", "extended").await;

    let (elsewhere, near) = (format!("ou=elsewhere,{SUFFIX}"), ["-b", SUFFIX, "-s", "one", "dn"]);
    assert!(site.slapd.direct().search(&near).await.ok().contains("# refldap://elsewhere.corp.example/"));
    assert!(site.to("more").search(&near).await.ok().contains("# refldap://elsewhere.corp.example/"));
    let without = site.to("hr").search(&near).await.ok();
    assert!(!without.contains("elsewhere") && without.contains("ou=people"), "{without}");
    let told = site.to("more").search(&["-b", &elsewhere, "-s", "base"]).await.exits(10);
    assert!(told.stderr.contains("elsewhere.corp.example"), "{}", told.stderr);
    let silent = site.to("hr").search(&["-b", &elsewhere, "-s", "base"]).await.exits(53);
    assert!(!silent.stderr.contains("elsewhere.corp.example"), "{}", silent.stderr);
}
