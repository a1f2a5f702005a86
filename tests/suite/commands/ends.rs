//! How tenants end by the command line, and the question before it.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{command, done, json, refused, text};
use crate::harness::{Bed, Tenant, on_both_engines};
use crate::program::output;

on_both_engines! {
    what_destroys_is_refused_without_a_terminal
    on_a_terminal_the_slug_confirms_and_nothing_else
    a_tenant_is_deleted_and_comes_back
    an_ended_tenant_is_kept_or_deleted
    a_purged_tenant_is_gone
}

/// The commands that destroy.
fn destroyers(acme: &Tenant) -> [Vec<&str>; 10] {
    [
        vec!["member", "remove", &acme.slug, &acme.owner.email],
        vec!["role", "delete", &acme.slug, "member"],
        vec!["api-key", "revoke", &acme.slug, "none"],
        vec!["platform-key", "revoke", "none"],
        vec!["webhook", "remove", &acme.slug, "none"],
        vec!["sso", "remove", &acme.slug],
        vec!["tenant", "delete", &acme.slug],
        vec!["tenant", "deprovision", &acme.slug],
        vec!["tenant", "purge", &acme.slug],
        vec!["plan", "cancel", &acme.slug],
    ]
}

async fn what_destroys_is_refused_without_a_terminal(t: &Bed) {
    let acme = t.tenant("acme").await;
    let before = json(t, &["tenant", "show", &acme.slug]);
    for words in destroyers(&acme) {
        let mut typed = command(t, &words);
        typed.stdin(Stdio::piped());
        let (code, out, err) = output(typed);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert!(err.contains("terminal") && err.contains("--yes"), "{err}");
    }
    assert_eq!(json(t, &["tenant", "show", &acme.slug]), before, "nothing was done");
}

/// The command on a pseudo terminal, where this is typed: exit code and all that is seen.
pub(super) fn on_a_terminal(command: &Command, typed: &str) -> (i32, String) {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().expect("plain"));
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    let line = format!("printf '%s\\n' '{typed}' | script -qec \"{}\" /dev/null", words.join(" "));
    let run = || {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&line);
        let (code, out, err) = output(shell);
        (code, out + &err)
    };
    let (code, seen) = run();
    // As `done` does: on a machine that is slow enough the server may lose a transaction, and says to try again.
    if seen.contains("DATABASE_UNAVAILABLE") { run() } else { (code, seen) }
}

async fn on_a_terminal_the_slug_confirms_and_nothing_else(t: &Bed) {
    let acme = t.tenant("acme").await;
    for wrong in ["yes", "", &acme.id] {
        let (code, seen) = on_a_terminal(&command(t, &["tenant", "delete", &acme.slug]), wrong);
        assert_eq!(code, 1, "{seen}");
        assert!(seen.contains("Type the slug") && seen.contains("nothing was done"), "{seen}");
    }
    assert_eq!(json(t, &["tenant", "show", &acme.slug])["status"], "active");
    // Named by its id, it is the slug that confirms.
    let (code, seen) = on_a_terminal(&command(t, &["tenant", "delete", &acme.id]), &acme.slug);
    assert_eq!(code, 0, "{seen}");
    assert_eq!(json(t, &["tenant", "show", &acme.slug])["status"], "deleted");
}

async fn a_tenant_is_deleted_and_comes_back(t: &Bed) {
    let acme = t.tenant("acme").await;
    let deleted = json(t, &["tenant", "delete", &acme.slug, "--yes"]);
    assert_eq!(deleted["status"], "deleted");
    assert!(deleted["purge_time"].is_string());
    refused(t, &["tenant", "delete", &acme.slug, "--yes"], "WRONG_STATE");
    assert!(text(t, &["tenant", "undelete", &acme.slug]).contains("active"));
    refused(t, &["tenant", "undelete", &acme.slug], "TENANT_NOT_DELETED");
}

async fn an_ended_tenant_is_kept_or_deleted(t: &Bed) {
    let (kept, deleted) = (t.tenant("kept").await, t.tenant("deleted").await);
    let before = json(t, &["tenant", "show", &kept.slug]);
    let told = text(t, &["tenant", "deprovision", &kept.slug, "--dry-run"]);
    assert!(told.contains("Nothing was done") && told.contains("cancelled"), "{told}");
    assert_eq!(json(t, &["tenant", "show", &kept.slug]), before);
    let ended = json(t, &["tenant", "deprovision", &kept.slug, "--yes", "--reason", "moved away"]);
    assert_eq!(ended["tenant"]["status"], "cancelled");
    assert!(!ended["steps"].as_array().unwrap().is_empty());
    let ended = json(t, &["tenant", "deprovision", &deleted.slug, "--delete-data", "--yes"]);
    assert_eq!(ended["tenant"]["status"], "deleted");
    refused(t, &["tenant", "deprovision", &deleted.slug, "--delete-data", "--yes"], "WRONG_STATE");
}

async fn a_purged_tenant_is_gone(t: &Bed) {
    let acme = t.tenant("acme").await;
    refused(t, &["tenant", "purge", &acme.slug, "--yes"], "WRONG_STATE");
    done(command(t, &["tenant", "delete", &acme.slug, "--yes"]));
    let counted = json(t, &["tenant", "purge", &acme.slug, "--dry-run"]);
    assert_eq!(counted["finished"], false);
    let rows = |report: &Value| -> i64 {
        report["tables"].as_array().unwrap().iter().map(|table| table["rows"].as_i64().unwrap()).sum()
    };
    assert!(rows(&counted) > 1, "{counted}");
    assert_eq!(json(t, &["tenant", "show", &acme.slug])["status"], "deleted", "only counted");
    let gone = json(t, &["tenant", "purge", &acme.slug, "--yes"]);
    assert_eq!(gone["finished"], true);
    assert!(rows(&gone) > 1, "{gone}");
    refused(t, &["tenant", "show", &acme.slug], "TENANT_NOT_FOUND");
}
