//! Changes: of what is listed, below the base, and otherwise never. Refuses to know how they are decided.

use super::Rules;
use crate::fixtures::ldap_client::Directory;
use crate::fixtures::slapd::{SERVICE, SUFFIX, person};

/// The entry as it is, of which only these attributes are shown.
async fn shown(site: &Rules, dn: &str, attribute: &str) -> String {
    site.slapd.direct().search(&["-b", dn, "-s", "base", attribute]).await.stdout
}

async fn as_service(to: &Directory, ldif: &str) -> i32 {
    to.modify(SERVICE, ldif).await.code()
}

#[tokio::test]
async fn d9_listed_attributes_are_written_below_the_base_and_nothing_else() {
    let allow = format!(
        "operations: [search, bind, modify, add, delete, modify_dn], base: \"ou=people,{SUFFIX}\", \
         modify_attributes: [mail, title, uid, cn, sn, objectClass]"
    );
    let seen = "operations: [bind, modify], modify_attributes: [mail], controls: [1.3.6.1.1.13.2]";
    let site = Rules::new(&[("hr", "operations: [search, compare, bind]"), ("writes", &allow), ("seen", seen)]).await;
    let (writes, five) = (site.to("writes"), person(5));
    let modify = |dn: &str, what: &str| format!("dn: {dn}\nchangetype: modify\n{what}");

    assert_eq!(
        as_service(&writes, &modify(&five, "replace: mail\nmail: new@corp.example\n-\nadd: title\ntitle: boss\n")).await,
        0
    );
    assert!(shown(&site, &five, "mail").await.contains("mail: new@corp.example"));
    let group = format!("cn=staff,ou=groups,{SUFFIX}");
    for (dn, what) in [
        (&five, "replace: description\ndescription: x\n"),
        // One that is not listed beside one that is: neither is written.
        (&five, "replace: mail\nmail: never@corp.example\n-\nadd: description\ndescription: x\n"),
        (&five, "replace: userPassword\nuserPassword: x\n"),
        (&five, "replace: 2.5.4.35\n2.5.4.35: x\n"),
        (&five, "add: USERPASSWORD;lang-de\nUSERPASSWORD;lang-de: x\n"),
        (&group, "replace: cn\ncn: staff\n"),
    ] {
        assert_eq!(as_service(&writes, &modify(dn, what)).await, 50, "{what}");
    }
    let kept = shown(&site, &five, "*").await;
    assert!(kept.contains("mail: new@corp.example") && !kept.contains("description"), "{kept}");
    assert_eq!(as_service(&site.to("hr"), &modify(&five, "replace: mail\nmail: x@corp.example\n")).await, 50);
    site.denied("hr", "operations").await;

    // An answer to a change can show what else is there.
    let shows = async |target: &str, control: &str| {
        let change = site.to(target).tool("ldapmodify").args(["-D", SERVICE.0, "-w", SERVICE.1, "-e", control]);
        change.stdin(modify(&five, "replace: mail\nmail: same@corp.example\n")).run().await
    };
    shows("writes", "!postread=userPassword").await.exits(12);
    assert!(!shows("writes", "postread=userPassword").await.ok().contains("userPassword"));
    for control in ["postread=userPassword", "!postread=2.5.4.35", "postread=*"] {
        shows("seen", control).await.exits(50);
    }
    assert!(shows("seen", "!postread=mail").await.ok().contains("mail: same@corp.example"));

    let add = |dn: &str, more: &str| format!("dn: {dn}\nchangetype: add\nobjectClass: inetOrgPerson\ncn: New\nsn: New\n{more}");
    let new = format!("uid=new,ou=people,{SUFFIX}");
    assert_eq!(as_service(&writes, &add(&new, "uid: new\nuserPassword: x\n")).await, 50);
    assert_eq!(as_service(&writes, &add(&format!("uid=new,{SUFFIX}"), "uid: new\n")).await, 50);
    assert_eq!(as_service(&writes, &add(&format!("description=new,ou=people,{SUFFIX}"), "")).await, 50);
    assert_eq!(as_service(&writes, &add(&new, "uid: new\n")).await, 0);

    let rename = |more: &str| format!("dn: {new}\nchangetype: modrdn\nnewrdn: {more}");
    for (more, code) in [
        (format!("uid=new\ndeleteoldrdn: 0\nnewsuperior: {SUFFIX}\n"), 50),
        ("description=x\ndeleteoldrdn: 0\n".to_owned(), 50),
        ("uid=newer\ndeleteoldrdn: 1\n".to_owned(), 0),
    ] {
        assert_eq!(as_service(&writes, &rename(&more)).await, code, "{more}");
    }
    let delete = |dn: &str| format!("dn: {dn}\nchangetype: delete\n");
    assert_eq!(as_service(&writes, &delete(&group)).await, 50);
    assert!(shown(&site, &group, "cn").await.contains("cn: staff"));
    assert_eq!(as_service(&writes, &delete(&format!("uid=newer,ou=people,{SUFFIX}"))).await, 0);
    for rule in ["base", "deny_attributes", "modify_attributes"] {
        site.denied("writes", rule).await;
    }
}
