//! Golden pages: every method, called as every one of a number of callers, a row a method and a column a caller. Methods come
//! from the descriptors, so a new one is on every page without a line here. `UPDATE_GOLDEN=1` writes the files anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use http::HeaderMap;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Person};
use crate::raw::{self, headers};

/// What the letters in the table stand for; everything else is written out. Refusals of a rule come after the access
/// check, so what is refused for its fields was let in.
pub(crate) const MARKS: &[(&str, Code, &str)] = &[
    ("ok", Code::Ok, ""),
    ("in", Code::InvalidArgument, "FIELDS_INVALID"),
    ("cred", Code::Unauthenticated, "CREDENTIAL_MISSING"),
    ("bad", Code::Unauthenticated, "CREDENTIAL_INVALID"),
    ("over", Code::Unauthenticated, "TOKEN_EXPIRED"),
    ("kind", Code::PermissionDenied, "CALLER_KIND_REFUSED"),
    ("perm", Code::PermissionDenied, "PERMISSION_MISSING"),
    ("scope", Code::PermissionDenied, "OPERATOR_SCOPE_MISSING"),
    ("susp", Code::PermissionDenied, "MEMBER_SUSPENDED"),
    ("shut", Code::PermissionDenied, "TENANT_SUSPENDED"),
    ("gone", Code::PermissionDenied, "TENANT_DELETED"),
    ("ended", Code::PermissionDenied, "TENANT_CANCELLED"),
    ("pend", Code::PermissionDenied, "TENANT_PENDING"),
    ("maint", Code::Unavailable, "TENANT_IN_MAINTENANCE"),
    ("login", Code::PermissionDenied, "RECENT_LOGIN_REQUIRED"),
    ("2step", Code::PermissionDenied, "MFA_REQUIRED"),
    ("pwd", Code::Unauthenticated, "PASSWORD_WRONG"),
    ("wait", Code::Unauthenticated, "MFA_CHALLENGE_INVALID"),
    ("bound", Code::PermissionDenied, "SESSION_BOUND"),
    ("imper", Code::PermissionDenied, "IMPERSONATED"),
    ("nosso", Code::NotFound, "SSO_NOT_CONFIGURED"),
    ("none", Code::NotFound, "TENANT_NOT_FOUND"),
    ("conf", Code::InvalidArgument, "TENANT_CONFLICT"),
    ("meta", Code::InvalidArgument, "METADATA_MALFORMED"),
    ("miss", Code::InvalidArgument, "TENANT_MISSING"),
    ("link", Code::NotFound, "LINK_INVALID"),
];

/// What each method said to each caller.
pub(crate) type Cells = BTreeMap<(String, &'static str), String>;

/// Somebody who calls every method.
pub(crate) struct Caller {
    pub(crate) mark: &'static str,
    words: &'static str,
    headers: HeaderMap,
    /// What the request says in its field `tenant`.
    tenant: String,
    /// What the request says in its field `subject_token`.
    subject: String,
}

impl Caller {
    pub(crate) fn new(mark: &'static str, words: &'static str, pairs: &[(&'static str, &str)]) -> Self {
        Self { mark, words, headers: headers(pairs), tenant: String::new(), subject: String::new() }
    }

    pub(crate) fn person(mark: &'static str, words: &'static str, person: &Person) -> Self {
        Self::new(mark, words, &[("authorization", &format!("Bearer {}", person.token))])
    }

    pub(crate) fn also(mut self, name: &'static str, value: &str) -> Self {
        self.headers.extend(headers(&[(name, value)]));
        self
    }

    pub(crate) fn naming(mut self, tenant: &str) -> Self {
        tenant.clone_into(&mut self.tenant);
        self
    }

    pub(crate) fn asking_about(mut self, token: &str) -> Self {
        token.clone_into(&mut self.subject);
        self
    }
}

/// Compares a page with its file, or writes the file when asked to.
pub(crate) fn compare(file: &str, page: &str, what: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, page).expect("writes");
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    let (want, have): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), page.lines().collect());
    let mut diff = String::new();
    for i in 0..want.len().max(have.len()) {
        let (old, new) = (want.get(i).unwrap_or(&""), have.get(i).unwrap_or(&""));
        if old != new {
            let _ = writeln!(diff, "-{old}\n+{new}");
        }
    }
    assert!(diff.is_empty(), "{what} has changed; UPDATE_GOLDEN=1 writes the page anew:\n{diff}");
}

/// Calls everything as one caller.
pub(crate) async fn fill(cells: &mut Cells, t: &Bed, caller: &Caller, fields: &[(&str, &str)]) {
    let channel = t.channel();
    let fields = [fields, &[("tenant", &caller.tenant), ("subject_token", &caller.subject)]].concat();
    for method in raw::methods() {
        let body = raw::request(&method, &fields);
        let answer = raw::call(&channel, &raw::path(&method), &caller.headers, &body).await;
        cells.insert((method.full_name().to_owned(), caller.mark), cell(&method, &answer));
    }
}

/// A decision that says no is an answer; its first reason is shown after an equals sign.
fn cell(method: &MethodDescriptor, answer: &Result<Response<Vec<u8>>, Status>) -> String {
    if let Ok(response) = answer
        && let Some(allowed) = method.output().get_field_by_name("allowed")
    {
        let message = DynamicMessage::decode(method.output(), response.get_ref().as_slice()).expect("an answer");
        if message.get_field(&allowed).as_bool() != Some(true) {
            let reasons = message.get_field_by_name("reasons").expect("reasons").into_owned();
            let first = reasons
                .as_list()
                .and_then(|list| list.first())
                .and_then(|reason| reason.as_message()?.get_field_by_name("reason")?.as_str().map(ToOwned::to_owned));
            let reason = first.expect("a reason");
            let known = MARKS.iter().find(|(_, _, named)| *named == reason);
            return format!("={}", known.map_or(reason.as_str(), |(mark, ..)| mark));
        }
    }
    let (code, reason) = raw::told(answer);
    let known = MARKS.iter().find(|(_, c, r)| (*c, *r) == (code, reason.as_str()));
    known.map_or_else(|| format!("{code:?}/{reason}"), |(mark, ..)| (*mark).to_owned())
}

/// The page: what it is about, what the marks mean, who the columns are, and the table.
pub(crate) fn render(about: &str, columns: &[Caller], cells: &Cells) -> String {
    let mut page = format!(
        "{about}\n\nWhatever would change something is sent with a request_id that is none, so that `in` is as far as it \
         gets.\n\n",
    );
    for (mark, code, reason) in MARKS {
        let _ = writeln!(page, "  {mark:<7} {}", format!("{code:?} {reason}").trim_end());
    }
    let _ = writeln!(page, "  =...    Ok, with a decision that says no, and why\n\nCallers:\n");
    for caller in columns {
        let _ = writeln!(page, "  {:<7} {}", caller.mark, caller.words);
    }
    let mut service = String::new();
    for method in raw::methods() {
        let of = method.parent_service().name().to_owned();
        if of != service {
            let heads: Vec<_> = columns.iter().map(|caller| format!("{:<5}", caller.mark)).collect();
            let _ = writeln!(page, "\n{of:<18} {}", heads.join(" ").trim_end());
            service = of;
        }
        let row: Vec<_> =
            columns.iter().map(|c| format!("{:<5}", cells[&(method.full_name().to_owned(), c.mark)])).collect();
        let _ = writeln!(page, "{:<18} {}", method.name(), row.join(" ").trim_end());
    }
    page
}
