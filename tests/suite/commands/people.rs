//! Members, invitations and roles by the command line.

use serde_json::Value;
use tenantry::rpc::v1;

use super::ends::on_a_terminal;
use super::{command, json, keys, lines, refused, text};
use crate::harness::{Bed, Engine, on_both_engines, unique};
use crate::program::output;

on_both_engines! {
    a_member_is_added_changed_suspended_and_removed
    a_member_is_found_by_address_on_whatever_page
    ownership_goes_to_another_member
    the_address_confirms_a_removal_and_nothing_else
    an_invitation_is_mailed_or_handed_over_sent_again_and_revoked
    all_people_of_a_file_are_invited_once
    a_role_is_made_tried_changed_and_deleted
}

async fn a_member_is_added_changed_suspended_and_removed(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let added = json(t, &["member", "add", &acme.slug, &bob.email, "--role", "viewer"]);
    assert_eq!((&added["user"]["user_id"], &added["status"]), (&bob.id.as_str().into(), &"active".into()));
    let wanted = ["etag", "join_time", "last_active_time", "membership_id", "roles", "status", "update_time", "user"];
    assert_eq!(keys(&added), wanted);
    refused(t, &["member", "add", &acme.slug, &bob.email], "ALREADY_MEMBER");
    refused(t, &["member", "add", &acme.slug, "nobody@example.com"], "USER_UNKNOWN");

    let changed = json(t, &["member", "roles", &acme.slug, &bob.email.to_uppercase(), "manager", "viewer"]);
    assert_eq!(changed["roles"], serde_json::json!(["manager", "viewer"]));
    let token = t.login(&bob, &acme.id).await.token;
    let whoami = async || t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert!(whoami().await.is_ok());
    assert!(text(t, &["member", "suspend", &acme.slug, &bob.id]).contains("suspended"));
    assert!(whoami().await.is_err(), "at once");
    let listed = lines(t, &["member", "list", &acme.slug, "--status", "suspended"]);
    assert_eq!((listed.len(), &listed[0]["user"]["email"]), (1, &bob.email.as_str().into()));
    refused(t, &["member", "suspend", &acme.slug, &bob.email], "WRONG_STATE");
    json(t, &["member", "reactivate", &acme.slug, &bob.email]);
    assert!(whoami().await.is_ok());

    let table = text(t, &["member", "list", &acme.slug]);
    assert!(table.starts_with("EMAIL") && table.contains("manager, viewer"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let removed = json(t, &["member", "remove", &acme.slug, &bob.email, "--yes"]);
    assert_eq!(removed["status"], "removed");
    assert!(whoami().await.is_err());
    refused(t, &["member", "show", &acme.slug, &bob.id], "MEMBER_NOT_FOUND");
    refused(t, &["member", "show", &acme.slug, &bob.email], "has no member");
    refused(t, &["member", "remove", &acme.slug, &acme.owner.email, "--yes"], "LAST_OWNER");
}

const PEOPLE_IN_SQLITE: &str = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 1003)
    insert into user_account (user_id, email, display_name, status, session_epoch, created_at, updated_at)
    select randomblob(16), 'p' || n.i || '@' || t.slug || '.example', 'P', 1, 0, t.created_at, t.created_at
    from n join tenant t on t.tenant_id = $1";

const PEOPLE_IN_POSTGRES: &str = "insert into user_account
      (user_id, email, display_name, status, session_epoch, created_at, updated_at)
    select gen_random_uuid(), 'p' || n || '@' || t.slug || '.example', 'P', 1, 0, t.created_at, t.created_at
    from generate_series(1, 1003) n join tenant t on t.tenant_id = $1";

/// They joined before everybody else.
const JOINED_IN_SQLITE: &str = "insert into membership
      (tenant_id, membership_id, user_id, role, status, version, joined_at, updated_at)
    select t.tenant_id, unhex(printf('%032x', row_number() over ())), u.user_id, 'viewer', 1, 1, t.created_at, t.created_at
    from tenant t join user_account u on u.email like 'p%@' || t.slug || '.example' where t.tenant_id = $1";

const JOINED_IN_POSTGRES: &str = "insert into membership
      (tenant_id, membership_id, user_id, role, status, version, joined_at, updated_at)
    select t.tenant_id, lpad(to_hex(row_number() over ()), 32, '0')::uuid, u.user_id, 'viewer', 1, 1, t.created_at,
      t.created_at
    from tenant t join user_account u on u.email like 'p%@' || t.slug || '.example' where t.tenant_id = $1";

async fn a_member_is_found_by_address_on_whatever_page(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let many = if t.engine == Engine::Sqlite {
        [PEOPLE_IN_SQLITE, JOINED_IN_SQLITE]
    } else {
        [PEOPLE_IN_POSTGRES, JOINED_IN_POSTGRES]
    };
    for sql in many {
        t.execute(sql, &acme.id).await;
    }
    t.join(&acme, &bob, "viewer").await;
    let all = lines(t, &["member", "list", &acme.slug]);
    assert_eq!((all.len(), &all[1004]["user"]["email"]), (1005, &bob.email.as_str().into()));
    assert_eq!(json(t, &["member", "show", &acme.slug, &bob.email]), all[1004]);
    refused(t, &["member", "show", &acme.slug, &format!("x{}", bob.email)], "has no member");
}

async fn ownership_goes_to_another_member(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let owner = json(t, &["member", "transfer-ownership", &acme.slug, &bob.email]);
    assert_eq!(owner["roles"], serde_json::json!(["owner"]));
    let before = json(t, &["member", "show", &acme.slug, &acme.owner.email]);
    assert_eq!(before["roles"], serde_json::json!(["owner"]), "the owners that there are stay");
    refused(t, &["member", "transfer-ownership", &acme.slug, "nobody@example.com"], "has no member");
}

async fn the_address_confirms_a_removal_and_nothing_else(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    for wrong in ["yes", "", &bob.id, &acme.slug] {
        let (code, seen) = on_a_terminal(&command(t, &["member", "remove", &acme.slug, &bob.id]), wrong);
        assert_eq!(code, 1, "{seen}");
        assert!(seen.contains("Type the address") && seen.contains("nothing was done"), "{seen}");
    }
    assert_eq!(json(t, &["member", "show", &acme.slug, &bob.id])["status"], "active");
    let (code, seen) = on_a_terminal(&command(t, &["member", "remove", &acme.slug, &bob.id]), &bob.email);
    assert_eq!(code, 0, "{seen}");
    refused(t, &["member", "show", &acme.slug, &bob.id], "MEMBER_NOT_FOUND");
}

async fn an_invitation_is_mailed_or_handed_over_sent_again_and_revoked(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (cleo, dora) = (format!("{}@example.com", unique("cleo")), format!("{}@example.com", unique("dora")));
    let mailed = json(t, &["invitation", "send", &acme.slug, &cleo, "--role", "viewer"]);
    assert_eq!((&mailed["token"], &mailed["link"]), (&Value::Null, &Value::Null));
    assert!(t.last_mail_to(&cleo).await.contains(&acme.slug));
    let handed = text(t, &["invitation", "send", &acme.slug, &dora, "--link"]);
    let link = handed.lines().find_map(|line| line.strip_prefix("    ")).expect("a link");
    let token = link.split_once("token=").expect("a token").1;
    let preview = async |token: &str| {
        let request = v1::PreviewInvitationRequest { token: token.to_owned() };
        t.anonymous().members.preview_invitation(request).await.map(|answer| answer.into_inner().email)
    };
    assert_eq!(preview(token).await.expect("opens"), dora);
    assert!(t.mails_to(&dora).is_empty(), "nothing by mail");
    refused(t, &["invitation", "send", &acme.slug, &dora], "ALREADY_INVITED");

    let pending = lines(t, &["invitation", "list", &acme.slug, "--status", "pending"]);
    assert_eq!(pending.iter().map(|row| row["email"].as_str().unwrap()).collect::<Vec<_>>(), [&cleo, &dora]);
    let id = pending[1]["invitation_id"].as_str().unwrap();
    let again = json(t, &["invitation", "resend", &acme.slug, id, "--link"]);
    assert!(preview(token).await.is_err(), "the link before opens nothing");
    let token = again["token"].as_str().expect("a token");
    assert_eq!(preview(token).await.expect("opens"), dora);
    assert!(text(t, &["invitation", "revoke", &acme.slug, id]).contains("revoked"));
    assert!(preview(token).await.is_err());
    refused(t, &["invitation", "revoke", &acme.slug, id], "INVITATION_FINISHED");
    let table = text(t, &["invitation", "list", &acme.slug, "--limit", "5"]);
    assert!(table.contains("revoked") && table.contains("pending") && table.lines().count() == 3, "{table}");
}

async fn all_people_of_a_file_are_invited_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = format!("{}.example", unique("many"));
    let file = t.dir.path().join(format!("{domain}.csv"));
    let people = (0..240).map(|i| format!("p{i}@{domain},viewer")).collect::<Vec<_>>().join("\n");
    std::fs::write(&file, format!("email,roles\n{people}\n\n{},member\nno address\n", acme.owner.email)).unwrap();
    let import = ["invitation", "import", &acme.slug, file.to_str().unwrap()];
    let (code, out, err) = output(command(t, &import));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("240 invited, 1 unchanged, 1 refused") && out.contains("no address"), "{out}");
    assert!(err.contains("1 of 242 people were refused"), "{err}");
    let listed = lines(t, &["invitation", "list", &acme.slug]);
    assert_eq!((listed.len(), &listed[0]["roles"]), (240, &serde_json::json!(["viewer"])));

    // Again, without what is wrong: nobody is asked twice. JSON tells each.
    std::fs::write(&file, format!("{people}\nnew@{domain}\n")).unwrap();
    let mut import = import.to_vec();
    import.push("--links");
    let told = lines(t, &import);
    assert_eq!(told.len(), 241);
    assert_eq!((&told[0]["reason"], &told[0]["invitation"]), (&"ALREADY_INVITED".into(), &Value::Null));
    let new = told.last().unwrap();
    assert_eq!((&new["reason"], &new["email"]), (&Value::Null, &format!("new@{domain}").into()));
    assert!(new["link"].as_str().unwrap().contains("token="));
    assert_eq!(lines(t, &["invitation", "list", &acme.slug]).len(), 241);
}

async fn a_role_is_made_tried_changed_and_deleted(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let wish = ["role", "create", &acme.slug, "accountant", "--rank", "15", "--permission", "billing.*"];
    let tried = text(t, &[&wish[..], &["--dry-run"]].concat());
    assert!(tried.contains("billing.manage") && tried.contains("Nothing was done"), "{tried}");
    refused(t, &["role", "update", &acme.slug, "accountant", "--rank", "16"], "ROLE_NOT_FOUND");
    let made = json(t, &[&wish[..], &["--permission", "tenant.read", "--description", "Counts"]].concat());
    assert_eq!((&made["own"], &made["description"]), (&true.into(), &"Counts".into()));
    json(t, &["member", "roles", &acme.slug, &bob.email, "accountant"]);

    let change = ["role", "update", &acme.slug, "accountant", "--permission", "tenant.read"];
    let tried = text(t, &[&change[..], &["--dry-run"]].concat());
    assert!(tried.contains("Members who have it: 1,") && tried.contains("billing.manage"), "{tried}");
    let shown = |name: &str| {
        let roles = lines(t, &["role", "list", &acme.slug]);
        roles.into_iter().find(|role| role["name"] == name).unwrap_or_default()
    };
    assert_eq!(shown("accountant"), made, "only tried");
    let changed = json(t, &change);
    assert_eq!(changed["role"]["permissions"], serde_json::json!(["tenant.read"]));
    assert_eq!((&changed["role"]["rank"], &changed["role"]["description"]), (&15.into(), &"Counts".into()));
    let etag = made["etag"].as_str().unwrap();
    refused(t, &["role", "update", &acme.slug, "accountant", "--rank", "16", "--etag", etag], "ETAG_MISMATCH");

    let delete = ["role", "delete", &acme.slug, "accountant"];
    refused(t, &[&delete[..], &["--yes"]].concat(), "ROLE_IN_USE");
    let replaced = [&delete[..], &["--replacement", "viewer"]].concat();
    let tried = json(t, &[&replaced[..], &["--dry-run"]].concat());
    assert_eq!(tried["impact"]["members"], 1);
    let (code, seen) = on_a_terminal(&command(t, &replaced), "no");
    assert_eq!(code, 1, "{seen}");
    assert!(seen.contains("Delete the role accountant?") && seen.contains("nothing was done"), "{seen}");
    assert_eq!(shown("accountant")["name"], "accountant");
    assert!(text(t, &[&replaced[..], &["--yes"]].concat()).contains("accountant is gone"));
    assert_eq!(shown("accountant"), Value::Null);
    assert_eq!(json(t, &["member", "show", &acme.slug, &bob.id])["roles"], serde_json::json!(["viewer"]));

    let table = text(t, &["role", "list", &acme.slug]);
    assert!(table.contains("owner") && table.contains("top") && table.contains("catalogue"), "{table}");
    assert!(text(t, &["role", "permissions", &acme.slug]).contains("members.invite"));
}
