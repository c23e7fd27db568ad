//! Passwords: never shown and never asked about, whatever their spelling. Refuses to know who asks.

use super::Rules;
use crate::fixtures::slapd::{PEOPLE, SUFFIX, password, person};

/// What slapd takes for the attribute of its people's passwords.
const SPELLINGS: [&str; 6] =
    ["userPassword", "USERPASSWORD", "userpassword", "2.5.4.35", "userPassword;lang-de", "2.5.4.35;x-a;x-b"];

#[tokio::test]
async fn d9_passwords_are_never_shown_whatever_their_spelling() {
    let site = Rules::new(&[("hr", ""), ("named", "attributes: [cn, uid, \"2.5.4.4\"]")]).await;
    let asked = async |target: &str, attributes: &[&str]| {
        let who = person(1);
        let found = site.to(target).search(&[&["-b", &who, "-s", "base"], attributes].concat()).await.ok();
        assert_eq!(super::names(&found), 1, "{attributes:?}: {found}");
        found
    };
    let bare = site.slapd.direct().search(&["-b", &person(1), "-s", "base", "*"]).await.ok();
    assert!(bare.contains("userPassword:: "), "the directory itself hides nothing: {bare}");
    let mut asks: Vec<Vec<&str>> = SPELLINGS.iter().map(|spelling| vec![*spelling]).collect();
    asks.extend([vec![], vec!["*"], vec!["+"], vec!["*", "+"], vec!["*", "userPassword"], vec!["mail", "2.5.4.35", "*"]]);
    for attributes in &asks {
        for target in ["hr", "named"] {
            let found = asked(target, attributes).await.to_lowercase();
            assert!(!found.contains("password") && !found.contains("2.5.4.35"), "{target} {attributes:?}: {found}");
        }
    }
    let rest = asked("hr", &["*"]).await;
    assert!(rest.contains("mail: u0001@") && rest.contains("sn: P0001"), "the others pass: {rest}");
    let listed = asked("named", &["*", "+"]).await;
    assert_eq!(listed, format!("dn: {}\nuid: u0001\ncn: Person 0001\nsn: P0001\n\n", person(1)));
}

#[tokio::test]
async fn d9_passwords_are_not_asked_about_in_filters_compares_and_controls() {
    let site = Rules::new(&[("hr", "")]).await;
    let hr = site.to("hr");
    let mut filters: Vec<String> = SPELLINGS.iter().map(|spelling| format!("({spelling}=*)")).collect();
    filters.extend(
        [
            "(userPassword=secret-1)",
            "(userPassword=secret*)",
            "(userPassword>=s)",
            "(userPassword~=s)",
            "(userPassword:2.5.13.17:=secret-1)",
            "(&(uid=u0001)(!(userPassword=secret-2)))",
            "(|(uid=u0001)(&(cn=*)(|(userPassword=secret-1))))",
            "(:2.5.13.17:=secret-1)",
        ]
        .map(str::to_owned),
    );
    for filter in &filters {
        let refused = hr.search(&["-b", SUFFIX, filter, "dn"]).await.exits(50);
        assert_eq!(super::names(&refused.stdout), 0, "{filter}");
    }
    for control in ["sss=userPassword", "sss=cn/2.5.4.35", "mv=(userPassword=*)"] {
        let refused = hr.search(&["-E", control, "-b", &person(1), "(uid=*)"]).await.exits(50);
        assert_eq!(super::names(&refused.stdout), 0, "{control}");
    }
    // The same that name nothing secret do work.
    let sorted = hr.search(&["-E", "sss=-uid:2.5.13.3", "-b", &format!("ou=people,{SUFFIX}"), "(uid=u000*)", "uid"]).await.ok();
    assert!(sorted.find("uid: u0009").unwrap() < sorted.find("uid: u0000").unwrap(), "{sorted}");
    for spelling in SPELLINGS {
        hr.tool("ldapcompare").arg(person(1)).arg(format!("{spelling}:{}", password(1))).run().await.exits(50);
    }
    hr.tool("ldapcompare").arg(person(1)).arg("mail:u0001@corp.example").run().await.exits(6);
    site.denied("hr", "deny_attributes").await;
    site.denied("hr", "extensible_match").await;
    let all = hr.search(&["-E", "pr=1000/noprompt", "-b", SUFFIX, "(objectClass=inetOrgPerson)", "*", "+"]).await.ok();
    assert_eq!((super::names(&all), all.to_lowercase().contains("userpassword")), (PEOPLE, false));
}
