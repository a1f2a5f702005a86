//! Accounts: what they say, how they change, and how they end.

use sqlx::{AssertSqlSafe, Connection as _};
use tenantry::rpc::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{
    Bed, Engine, PASSWORD, Person, assert_refused, on_both_engines, request_id, unique, wrong_fields,
};
use crate::links::token_of;

on_both_engines! {
    an_account_tells_and_takes_what_its_owner_chooses
    a_stale_etag_changes_no_account
    the_default_tenant_is_one_of_the_persons_own
    a_deleted_account_leaves_nothing_personal
    the_only_owner_of_a_tenant_stays
    a_disabled_account_is_out_until_it_is_enabled
    a_repetition_asks_for_no_further_letter
    whatever_an_account_tells_has_an_etag_of_its_own
}

async fn account(t: &Bed, person: &Person) -> v1::Account {
    let told = t.with_token(&person.token).auth.get_account(v1::GetAccountRequest {}).await.expect("an account");
    told.into_inner().account.expect("an account")
}

fn login(person: &Person) -> v1::LoginRequest {
    v1::LoginRequest { email: person.email.clone(), password: PASSWORD.to_owned(), ..Default::default() }
}

fn end(person: &Person) -> v1::DeleteAccountRequest {
    v1::DeleteAccountRequest { confirm_email: person.email.clone(), ..Default::default() }
}

async fn an_account_tells_and_takes_what_its_owner_chooses(t: &Bed) {
    let ann = t.person("ann").await;
    let before = account(t, &ann).await;
    let user = before.user.as_ref().unwrap();
    assert_eq!((user.email.as_str(), user.display_name.as_str()), (ann.email.as_str(), "ann"));
    assert!(!before.email_verified && before.locale.is_empty() && before.default_tenant_id.is_empty());
    assert!(before.password_change_time.is_some() && before.create_time.is_some());

    let mut as_ann = t.with_token(&ann.token);
    let update = v1::UpdateAccountRequest {
        request_id: request_id(),
        display_name: "Ann Lee".to_owned(),
        locale: "de-CH".to_owned(),
        ..Default::default()
    };
    let done = as_ann.auth.update_account(update.clone()).await.unwrap().into_inner().account.unwrap();
    assert_eq!((done.user.as_ref().unwrap().display_name.as_str(), done.locale.as_str()), ("Ann Lee", "de-CH"));
    assert_eq!(as_ann.auth.update_account(update).await.unwrap().into_inner().account.unwrap(), done);
    assert_eq!(account(t, &ann).await, done);
    // A mask clears what it names and leaves the rest.
    let mask = prost_types::FieldMask { paths: vec!["locale".to_owned()] };
    let clear =
        v1::UpdateAccountRequest { update_mask: Some(mask), display_name: "Nobody".to_owned(), ..Default::default() };
    let done = as_ann.auth.update_account(clear).await.unwrap().into_inner().account.unwrap();
    assert_eq!((done.user.unwrap().display_name.as_str(), done.locale.as_str()), ("Ann Lee", ""));
    let mask = prost_types::FieldMask { paths: vec!["email".to_owned()] };
    let wrong = v1::UpdateAccountRequest { request_id: "1".to_owned(), update_mask: Some(mask), ..Default::default() };
    assert_eq!(wrong_fields(as_ann.auth.update_account(wrong).await), ["request_id", "update_mask"]);
    assert_eq!(wrong_fields(as_ann.auth.update_account(v1::UpdateAccountRequest::default()).await), ["update_mask"]);
    let wrong = v1::UpdateAccountRequest { locale: "no locale".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(as_ann.auth.update_account(wrong).await), ["locale"]);
}

async fn a_stale_etag_changes_no_account(t: &Bed) {
    let ann = t.person("ann").await;
    let etag = account(t, &ann).await.etag;
    let update = |name: &str| v1::UpdateAccountRequest {
        etag: etag.clone(),
        display_name: name.to_owned(),
        ..Default::default()
    };
    let mut as_ann = t.with_token(&ann.token);
    as_ann.auth.update_account(update("Ann One")).await.unwrap();
    let stale = as_ann.auth.update_account(update("Ann Two")).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(account(t, &ann).await.user.unwrap().display_name, "Ann One");
}

async fn the_default_tenant_is_one_of_the_persons_own(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let ann = t.member(&acme, "viewer").await;
    let mut as_ann = t.with_token(&ann.token);
    let update = |tenant: &str| v1::UpdateAccountRequest { default_tenant: tenant.to_owned(), ..Default::default() };
    for name in [&other.id, &other.slug, &request_id(), &unique("absent")] {
        assert_refused(as_ann.auth.update_account(update(name)).await, Code::NotFound, "TENANT_NOT_FOUND");
    }
    let done = as_ann.auth.update_account(update(&acme.slug)).await.unwrap().into_inner().account.unwrap();
    assert_eq!(done.default_tenant_id, acme.id);
}

/// Where in the database a text or id still stands, by table.
async fn traces(t: &Bed, id: &str, texts: [&str; 2]) -> Vec<String> {
    let uuid: uuid::Uuid = id.parse().unwrap();
    let mut found = Vec::new();
    let holds = |kind: &str, column: &str, sqlite: bool| match kind {
        "uuid" => Some(format!("{column} = '{uuid}'")),
        "BLOB" => Some(format!("{column} = x'{}'", uuid.as_simple())),
        "text" | "TEXT" => {
            let find = if sqlite { format!("instr({column}, '") } else { format!("strpos({column}, '") };
            Some(texts.map(|text| format!("{find}{text}') > 0")).join(" or "))
        }
        _ => None,
    };
    if let Some(database) = &t.database {
        let mut conn = database.administrator().await;
        let columns: Vec<(String, String, String)> = sqlx::query_as(
            "select c.relname::text, quote_ident(a.attname), a.atttypid::regtype::text
             from pg_class c
             join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where c.relnamespace = 'tenantry'::regnamespace and c.relkind in ('r', 'p')",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        for (table, column, kind) in columns {
            let Some(holds) = holds(&kind, &column, false) else { continue };
            let sql = format!("select count(*) from tenantry.{table} where {holds}");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
            if rows > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
    } else {
        let file = t.dir.path().join("tenantry.db");
        let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        let columns: Vec<(String, String, String)> = sqlx::query_as(
            "select m.name, p.name, p.type from sqlite_schema m, pragma_table_info(m.name) p where m.type = 'table'",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap();
        for (table, column, kind) in columns {
            let Some(holds) = holds(&kind, &format!("\"{column}\""), true) else { continue };
            let sql = format!("select count(*) from {table} where {holds}");
            let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
            if rows > 0 {
                found.push(format!("{table}.{column}"));
            }
        }
    }
    found.sort();
    found
}

async fn a_deleted_account_leaves_nothing_personal(t: &Bed) {
    let acme = t.tenant("acme").await;
    let name = unique("distinctive");
    let person = t.person(&name).await;
    let invite = v1::InviteMemberRequest {
        email: person.email.clone(),
        roles: vec!["admin".to_owned()],
        send_email: true,
        ..Default::default()
    };
    t.with_token(&acme.owner.token).members.invite_member(invite).await.expect("invites");
    let token = token_of(&t.last_mail_to(&person.email).await);
    let accept = v1::AcceptInvitationRequest { token, ..Default::default() };
    t.with_token(&person.token).members.accept_invitation(accept).await.expect("joins");
    let person = t.login(&person, &acme.id).await;
    let other = t.login(&person, "").await;
    let unsure = t.with_token(&person.token).auth.delete_account(v1::DeleteAccountRequest::default()).await;
    assert_eq!(wrong_fields(unsure), ["confirm_email"]);
    t.with_token(&person.token).auth.delete_account(end(&person)).await.expect("is deleted");
    t.mail_to(&person.email, "deleted").await;
    for token in [&person.token, &other.token] {
        let out = t.with_token(token).auth.who_am_i(v1::WhoAmIRequest {}).await;
        assert_refused(out, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    let refresh = v1::RefreshTokenRequest { refresh_token: other.refresh };
    assert_refused(t.anonymous().auth.refresh_token(refresh).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    assert_refused(t.anonymous().auth.login(login(&person)).await, Code::Unauthenticated, "PASSWORD_WRONG");
    let member = v1::GetMemberRequest { user_id: person.id.clone(), ..Default::default() };
    let gone = t.with_token(&acme.owner.token).members.get_member(member).await;
    assert_refused(gone, Code::NotFound, "MEMBER_NOT_FOUND");
    // The account's own row, the removed membership and how it began stay by their ids, and what happened stays in the logs.
    let traces = traces(t, &person.id, [&person.email, &name]).await;
    let stay = |trace: &String| {
        let logs = ["audit_event.", "platform_audit.", "change.", "idempotency."];
        let ids = ["user_account.user_id", "membership.user_id", "invitation.accepted_by"];
        logs.iter().any(|log| trace.starts_with(log)) || ids.contains(&trace.as_str())
    };
    let left: Vec<_> = traces.into_iter().filter(|trace| !stay(trace)).collect();
    assert!(left.is_empty(), "{left:?}");
    // The address is free.
    let sign_up = v1::SignUpRequest {
        email: person.email.clone(),
        password: PASSWORD.to_owned(),
        display_name: "Somebody Else".to_owned(),
        ..Default::default()
    };
    let again = t.anonymous().auth.sign_up(sign_up).await.expect("signs up").into_inner();
    assert_ne!(again.user.unwrap().user_id, person.id);
}

async fn the_only_owner_of_a_tenant_stays(t: &Bed) {
    // The place that could end comes first.
    let (other, acme) = (t.tenant("other").await, t.tenant("acme").await);
    t.join(&other, &acme.owner, "viewer").await;
    let mut owner = t.with_token(&acme.owner.token);
    let refused = owner.auth.delete_account(end(&acme.owner)).await.unwrap_err();
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "SOLE_OWNER");
    let named: Vec<_> = details.precondition_failure().unwrap().violations.iter().map(|v| v.subject.clone()).collect();
    assert_eq!(named, std::slice::from_ref(&acme.slug));
    let member = v1::GetMemberRequest { user_id: acme.owner.id.clone(), ..Default::default() };
    t.with_token(&other.owner.token).members.get_member(member).await.expect("nothing has ended");
    // With another owner it goes.
    t.member(&acme, "owner").await;
    owner.auth.delete_account(end(&acme.owner)).await.expect("is deleted");
    // A deleted tenant needs no owner any more.
    let delete = v1::DeleteTenantRequest { tenant: other.id.clone(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
    t.with_token(&other.owner.token).auth.delete_account(end(&other.owner)).await.expect("is deleted");
}

async fn a_disabled_account_is_out_until_it_is_enabled(t: &Bed) {
    let ann = t.person("ann").await;
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let disable = v1::DisableAccountRequest { user_id: ann.id.clone(), ..Default::default() };
    for _ in 0..2 {
        let done = t.operator().auth.disable_account(disable.clone()).await.expect("is disabled").into_inner();
        assert_eq!(done.user.unwrap().email, ann.email);
    }
    for t in [Some(t), second.as_ref()].into_iter().flatten() {
        let out = t.with_token(&ann.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
        assert_refused(out, Code::Unauthenticated, "CREDENTIAL_INVALID");
        assert_refused(t.anonymous().auth.login(login(&ann)).await, Code::Unauthenticated, "PASSWORD_WRONG");
    }
    let enable = v1::EnableAccountRequest { user_id: ann.id.clone(), ..Default::default() };
    t.operator().auth.enable_account(enable.clone()).await.expect("is enabled");
    let out = t.with_token(&ann.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(out, Code::Unauthenticated, "CREDENTIAL_INVALID");
    t.login(&ann, "").await;
    let nobody = v1::EnableAccountRequest { user_id: request_id(), ..Default::default() };
    assert_refused(t.operator().auth.enable_account(nobody).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
    let own = t.with_token(&ann.token).auth.enable_account(enable).await;
    assert_refused(own, Code::Unauthenticated, "CREDENTIAL_INVALID");
    if let Some(second) = second {
        second.stop().await;
    }
}

async fn a_repetition_asks_for_no_further_letter(t: &Bed) {
    let ann = t.person("ann").await;
    let mut as_ann = t.with_token(&ann.token);
    let prove = v1::RequestEmailVerificationRequest { request_id: request_id() };
    let new_email = format!("{}@example.com", unique("new"));
    let wish = v1::ChangeEmailRequest { request_id: request_id(), new_email, password: PASSWORD.to_owned() };
    // More often than letters to one address may be asked for.
    for _ in 0..7 {
        as_ann.auth.request_email_verification(prove.clone()).await.expect("the same answer");
        as_ann.auth.change_email(wish.clone()).await.expect("the same answer");
    }
    // Also when it could not be asked for any more.
    let token = token_of(&t.mail_to(&ann.email, "token=").await);
    t.anonymous().auth.verify_email(v1::VerifyEmailRequest { token }).await.expect("is proven");
    as_ann.auth.request_email_verification(prove).await.expect("the same answer");
}

async fn whatever_an_account_tells_has_an_etag_of_its_own(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    t.join(&other, &acme.owner, "viewer").await;
    let ann = &acme.owner;
    let before = account(t, ann).await;
    let mut as_ann = t.with_token(&ann.token);
    as_ann.auth.request_email_verification(v1::RequestEmailVerificationRequest::default()).await.unwrap();
    let token = token_of(&t.mail_to(&ann.email, "token=").await);
    t.anonymous().auth.verify_email(v1::VerifyEmailRequest { token }).await.expect("is proven");
    let proven = account(t, ann).await;
    assert!(proven.email_verified && proven.etag != before.etag);
    let to = v1::SwitchTenantRequest { to_tenant: other.id.clone(), keep_as_default: true, ..Default::default() };
    as_ann.auth.switch_tenant(to).await.expect("switches");
    let switched = account(t, ann).await;
    assert!(switched.default_tenant_id == other.id && switched.etag != proven.etag);
}
