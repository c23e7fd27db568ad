//! A domain controller: what its clients do that OpenLDAP's don't. Refuses to know how its entries are made.

use serde_json::json;

use super::{Directory, ldaps, names};
use crate::fixtures::samba::{ADMIN, PEOPLE, SUFFIX, Samba, login, password, person};
use crate::fixtures::vendor::Vendor;
use crate::http::Web;
use crate::search::searched;

/// The rule by which Active Directory follows memberships of memberships, and the one that looks at single bits.
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";
const BIT_AND: &str = "1.2.840.113556.1.4.803";

#[tokio::test]
async fn a_domain_is_searched_and_nobody_sees_or_sets_a_password() {
    let vendor = Vendor::new();
    let samba = Samba::start(&vendor).await;
    let target = |allow: &str| ldaps(samba.ldaps(), &vendor, &format!(", allow: {{{allow}}}"));
    let writes = "operations: [search, bind, modify], modify_attributes: [description]";
    let web =
        Web::new(&[("hr", target("operations: [search, bind, compare]")), ("none", target("")), ("writes", target(writes))])
            .await;
    let hr = Directory::at(web.raw("hr"));
    let (who, word) = (login(1), password(1));
    let as_one = ["-D", &who, "-w", &word, "-b", SUFFIX];
    let search = async |more: &[&str]| hr.search(&[&as_one, more].concat()).await;

    let all = search(&["-E", "pr=20/noprompt", "(mail=u0*)", "objectGUID"]).await.ok();
    assert_eq!((names(&all), all.matches("objectGUID:: ").count()), (PEOPLE, PEOPLE));
    let staff = format!("CN=staff,OU=people,{SUFFIX}");
    let members = search(&[&format!("(memberOf:{IN_CHAIN}:={staff})"), "dn"]).await.ok();
    assert_eq!(names(&members), PEOPLE - 1);
    let enabled = search(&[&format!("(&(sAMAccountName=u000*)(userAccountControl:{BIT_AND}:=512))"), "dn"]).await.ok();
    assert_eq!(names(&enabled), 10);

    for attributes in [
        &["*", "+"][..],
        &["unicodePwd"],
        &["UNICODEPWD", "cn"],
        &["1.2.840.113556.1.4.90"],
        &["supplementalCredentials", "dBCSPwd"],
        &["ntPwdHistory;x"],
    ] {
        let admin = ["-D", ADMIN.0, "-w", ADMIN.1, "-b", SUFFIX, "(sAMAccountName=u0001)"];
        let found = hr.search(&[&admin, attributes].concat()).await.ok().to_lowercase();
        assert_eq!(names(&found), 1, "{attributes:?}");
        for secret in ["unicodepwd", "pwdhistory", "supplementalcredentials", "dbcspwd", "1.2.840.113556.1.4.90"] {
            assert!(!found.contains(secret), "{attributes:?}: {found}");
        }
    }
    for filter in ["(unicodePwd=*)", "(1.2.840.113556.1.4.90=*)", "(|(cn=x)(supplementalCredentials=*))"] {
        search(&[filter, "dn"]).await.exits(50);
    }
    // Replication, and what was deleted: neither is among the controls that pass.
    for control in ["!1.2.840.113556.1.4.841", "!1.2.840.113556.1.4.417"] {
        search(&["-e", control, "(cn=x)"]).await.exits(12);
    }
    let writes = Directory::at(web.raw("writes"));
    let modify = async |attribute: &str| {
        let ldif = format!("dn: {}\nchangetype: modify\nreplace: {attribute}\n{attribute}: x\n", person(2));
        writes.modify(ADMIN, &ldif).await.code()
    };
    assert_eq!((modify("unicodePwd").await, modify("userPassword").await, modify("title").await), (50, 50, 50));
    assert_eq!(modify("description").await, 0);

    hr.search(&["-D", &who, "-w", "wrong", "-b", SUFFIX]).await.exits(49);
    hr.search(&["-D", &who, "-w", "", "-b", SUFFIX]).await.exits(53);
    Directory::at(web.raw("none")).search(&as_one).await.exits(53);
    // Nobody sees nothing; the root's entry says where everything is.
    let root = Directory::at(web.raw("none")).search(&["-b", "", "-s", "base", "defaultNamingContext"]).await.ok();
    assert_eq!(root, format!("dn:\ndefaultNamingContext: {SUFFIX}\n\n"));
    let script = format!(
        "connection = ldap3.Connection(server, '{who}', '{word}', auto_bind=True)\n\
         found = connection.extend.standard.paged_search('{SUFFIX}', '(objectClass=user)', attributes=['memberOf', 'objectSid'], paged_size=25)\n\
         print(sum('CN=staff' in str(entry['attributes'].get('memberOf')) for entry in found if entry['type'] == 'searchResEntry'))\n"
    );
    assert_eq!(hr.python(&script).await.ok().trim(), (PEOPLE - 1).to_string());
}

#[tokio::test]
async fn when_the_first_controller_stops_the_second_serves() {
    let vendor = Vendor::new();
    let (mut first, second) = (Samba::start(&vendor).await, Samba::start(&vendor).await);
    let alternates = format!(", alternates: [\"ldaps://{}\"], allow: {{operations: [search, bind]}}", second.ldaps());
    let web = Web::new(&[("hr", ldaps(first.ldaps(), &vendor, &alternates))]).await;
    let serves = async || {
        let (who, word) = (login(3), password(3));
        let found = Directory::at(web.raw("hr")).search(&["-D", &who, "-w", &word, "-b", &person(3), "mail"]).await.ok();
        assert!(found.contains("mail: u0003@corp.example"), "{found}");
        let query = json!({"base": SUFFIX, "filter": "(mail=u0003@*)", "bind": {"dn": who, "password": word}});
        let (status, _, found) = searched(&web, "hr", &query).await;
        assert_eq!((status, found["count"].as_u64()), (200, Some(1)), "{found}");
    };
    serves().await;
    first.stop();
    serves().await;
}
