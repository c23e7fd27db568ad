//! `underpass explain`: the codes' table. It refuses to know where codes come from.

use serde_json::json;

use super::{Outcome, print};
use crate::base::code::{Code, Exit};

pub(super) fn run(code: Option<&str>, json: bool) -> Outcome {
    match code {
        Some(name) => one(name.parse()?, json),
        None => all(json),
    }
    Ok(Exit::Ok)
}

fn one(code: Code, json: bool) {
    if json {
        return print::json(&row(code));
    }
    print::line(code);
    print::line(format!("  cause    {}", code.cause()));
    print::line(format!("  remedy   {}", code.remedy()));
    print::line(format!("  fault    {}", code.fault().as_str()));
    print::line(format!("  exit     {}", code.exit() as u8));
    print::line(format!("  retried  {}", if code.elsewhere() { "at another agent of the group" } else { "no" }));
}

fn all(json: bool) {
    if json {
        return print::json(&Code::ALL.iter().map(|code| row(*code)).collect::<Vec<_>>());
    }
    let rows: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            [code.to_string(), code.fault().as_str().to_owned(), (code.exit() as u8).to_string(), code.cause().to_owned()]
        })
        .collect();
    print::table(["CODE", "FAULT", "EXIT", "CAUSE"], &rows);
}

fn row(code: Code) -> serde_json::Value {
    json!({
        "code": code,
        "fault": code.fault().as_str(),
        "exit": code.exit() as u8,
        "retried_elsewhere": code.elsewhere(),
        "cause": code.cause(),
        "remedy": code.remedy(),
    })
}
