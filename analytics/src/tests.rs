//! Formats say everything the table has, as before, whatever is in the values.

mod samples;

use std::collections::{BTreeMap, BTreeSet};

use eventlog::Activity;
use proto::v1::{Access, SignInAttempt};

use crate::{
    formats::{Format, cef, ocsf},
    record::{FIELDS, Record, Type, Value},
};

/// Carriage return, line feed, what means something in a format, what acts in a
/// terminal, NUL, a line separator, quotes, and text of every kind.
const HOSTILE: &str =
    "a\r\nCEF:0|x|y|1|forged|n|9|suser=root\n{\"class_uid\":0}\t|=\\\u{1b}[2J\0\u{85}\u{2028}\"'<é\u{10ffff}";

#[test]
fn ocsf_is_what_it_was() {
    let golden = include_str!("../samples/ocsf.jsonl");
    let lines = lines(Format::Ocsf, &samples::all());
    let changed: Vec<_> = lines.iter().zip(golden.lines()).filter(|(now, before)| now != before).collect();
    assert!(changed.is_empty() && lines.len() == golden.lines().count(), "{changed:#?}");
}

#[test]
fn every_place_in_a_format_is_of_a_field_in_the_table() {
    let names: BTreeSet<_> = FIELDS.iter().map(|it| it.name).collect();
    assert_eq!(names.len(), FIELDS.len(), "a name is there twice");
    let places = ocsf::places().map(|(field, _)| field).chain(cef::fields_with_keys());
    for field in places {
        assert!(names.contains(field), "{field} is not in the table");
    }
}

#[test]
fn every_field_is_said_by_some_kind_and_has_its_type() {
    let activities = samples::all();
    let body = samples::body();
    let mut said = BTreeSet::new();
    for record in activities.iter().flat_map(|it| Record::of(&body, it)) {
        for (field, value) in record.fields() {
            said.insert(field.name);
            let fits = match (field.kind, value) {
                (Type::Text, Value::Text(_))
                | (Type::Number, Value::Number(_))
                | (Type::Flag, Value::Flag(_))
                | (Type::List, Value::List(_)) => true,
                (Type::Word(words), Value::Text(word)) => words().contains(&word) || word == "of a newer release",
                (Type::Text | Type::Number | Type::Flag | Type::List | Type::Word(_), _) => false,
            };
            assert!(fits, "{} is {value:?}", field.name);
        }
    }
    let silent: Vec<_> = FIELDS.iter().map(|it| it.name).filter(|it| !said.contains(it)).collect();
    // Relays do not write it yet.
    assert_eq!(silent, ["trace_id"]);
}

#[test]
fn every_field_is_in_every_format() {
    let body = samples::body();
    // A value of its own for each field, so that it is found again.
    let access = Access { trace_id: "tr-1".into(), refusal: "busy".into(), ..samples::forwarded() };
    for activity in samples::all().into_iter().chain([Activity::Access(access)]) {
        for record in Record::of(&body, &activity) {
            let (ocsf, cef) = (Format::Ocsf.line(&record), Format::Cef.line(&record));
            for (field, value) in record.fields().filter(|(field, _)| field.name != "total_us") {
                let text = match value {
                    Value::Text(it) => it.to_owned(),
                    Value::Number(it) => it.to_string(),
                    Value::Flag(it) => it.to_string(),
                    Value::List(it) => it.join(","),
                    Value::Absent => continue,
                };
                assert!(ocsf.replace("\",\"", ",").contains(&text), "{} is not in {ocsf}", field.name);
                assert!(cef.contains(&text), "{} is not in {cef}", field.name);
            }
        }
    }
}

#[test]
fn a_hostile_value_stays_within_its_field_in_ocsf() {
    for (activity, of) in hostile() {
        let [line] = &lines(Format::Ocsf, &[activity])[..] else { panic!("one line") };
        assert!(!line.contains(['\n', '\r', '\0', '\u{1b}']), "{line}");
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        for pointer in of {
            assert_eq!(read.pointer(pointer).unwrap(), HOSTILE, "{pointer}");
        }
        assert_eq!(read["metadata"]["tenant_uid"], "default");
    }
}

#[test]
fn a_hostile_value_stays_within_its_field_in_cef() {
    for (activity, _) in hostile() {
        let tame = [Activity::SignIn(samples::success()), Activity::Access(samples::forwarded())];
        let keys_of_tame: BTreeSet<_> =
            lines(Format::Cef, &tame).iter().flat_map(|line| read_cef(line).1.into_keys()).collect();
        let [line] = &lines(Format::Cef, &[activity])[..] else { panic!("one line") };
        assert!(!line.chars().any(|it| it.is_control() || it == '\u{2028}'), "{line:?}");
        let (header, values) = read_cef(line);
        assert_eq!((header.len(), &header[1][..], &header[2][..]), (7, "Postern", "Postern"), "{line}");
        // What the value would add if it got out.
        assert_ne!(values.get("suser").map(String::as_str), Some("root"));
        for key in values.keys().filter(|key| !keys_of_tame.contains(*key)) {
            assert!(matches!(key.as_str(), "posternAddress" | "reason"), "{key} was forged: {line}");
        }
        for key in ["requestClientApplication", "cs2"] {
            let code = |it: char| format!("\\u{{{:x}}}", u32::from(it));
            let shown = HOSTILE.chars().fold(String::new(), |text, it| match it {
                '\n' | '\r' => text + &String::from(it),
                it if it.is_control() || it == '\u{2028}' => text + &code(it),
                it => text + &String::from(it),
            });
            assert_eq!(values[key], shown, "{key}");
        }
    }
}

#[test]
fn cef_is_what_receivers_expect() {
    let line = &lines(Format::Cef, &[Activity::SignIn(samples::success())])[0];
    let (header, values) = read_cef(line);
    assert_eq!(header[..3], ["CEF:0", "Postern", "Postern"]);
    assert_eq!(header[4..], ["sign_in:success", "Sign-in", "1"]);
    for (key, value) in [
        ("rt", "1700000000123"),
        ("suser", "alice"),
        ("src", "192.0.2.7"),
        ("cs3", "pwd,otp"),
        ("cs3Label", "methods"),
        ("posternMfa", "true"),
    ] {
        assert_eq!(values[key], value, "{line}");
    }
    let line = &lines(Format::Cef, &[Activity::Access(samples::forwarded())])[0];
    assert_eq!(read_cef(line).1["c6a2"], "2001:db8::7", "{line}");
}

#[test]
fn the_page_lists_the_fields_of_the_table() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/roles/analytics.md")).unwrap();
    let rows: Vec<&str> = page.split("| field | kinds |").nth(1).unwrap().lines().skip(2).collect();
    let table: Vec<String> = FIELDS.iter().map(|it| it.to_string()).collect();
    assert_eq!(rows, table, "write the table as it is here:\n{}", table.join("\n"));
}

/// One sign-in and one access in which every text is hostile, and where OCSF has them.
fn hostile() -> [(Activity, &'static [&'static str]); 2] {
    let it = || HOSTILE.to_owned();
    let sign_in = SignInAttempt {
        user: it(),
        username: it(),
        session: it(),
        app: it(),
        address: it(),
        user_agent: it(),
        outcome: it(),
        methods: vec![it(), it()],
        policies: vec![it()],
    };
    let access = Access {
        request_id: it(),
        app: it(),
        user: it(),
        session: it(),
        address: it(),
        method: it(),
        path_class: it(),
        refusal: it(),
        policies: vec![it()],
        report_only: vec![it()],
        connector: it(),
        user_agent: it(),
        host: it(),
        ..samples::forwarded()
    };
    [
        (Activity::SignIn(sign_in), &["/user/name", "/src_endpoint/ip", "/status_code", "/unmapped/methods/1"]),
        (Activity::Access(access), &["/http_request/url/path", "/http_request/http_method", "/unmapped/user"]),
    ]
}

fn lines(format: Format, activities: &[Activity]) -> Vec<String> {
    let body = samples::body();
    activities.iter().flat_map(|it| Record::of(&body, it)).map(|it| format.line(&it)).collect()
}

/// The header's seven fields and the extension, by the book of the format.
fn read_cef(line: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut fields, mut field, mut letters) = (vec![], String::new(), line.chars());
    while fields.len() < 7 {
        match letters.next().expect("seven fields end with a bar") {
            '\\' => field.push(letters.next().unwrap()),
            '|' => fields.push(std::mem::take(&mut field)),
            it => field.push(it),
        }
    }
    // A key is the word before an `=` that is not escaped; the value goes on to
    // the space before the next key.
    let extension: Vec<char> = letters.collect();
    let mut equals = Vec::new();
    let mut at = 0;
    while at < extension.len() {
        match extension[at] {
            '\\' => at += 1,
            '=' => equals.push(at),
            _ => {}
        }
        at += 1;
    }
    let key_begins = |equals: usize| extension[..equals].iter().rposition(|it| *it == ' ').map_or(0, |it| it + 1);
    let mut values = BTreeMap::new();
    for (n, at) in equals.iter().enumerate() {
        let end = equals.get(n + 1).map_or(extension.len(), |next| key_begins(*next) - 1);
        let key: String = extension[key_begins(*at)..*at].iter().collect();
        let mut value = String::new();
        let mut letters = extension[at + 1..end].iter();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => value.push(match letters.next().unwrap() {
                    'n' => '\n',
                    'r' => '\r',
                    it => *it,
                }),
                it => value.push(*it),
            }
        }
        assert!(values.insert(key.clone(), value).is_none(), "{key} is there twice: {line}");
    }
    (fields, values)
}
