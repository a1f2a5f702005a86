//! Accounts: shown, changed, ended, switched off and on.

use tonic::Request;

use crate::app::account::ProfileChanges;
use crate::app::mutation::etag;
use crate::ctx::{Ctx, SignedIn};
use crate::domain::name::{Email, TenantName, display_name};
use crate::domain::settings::locale;
use crate::domain::user::{Profile, User};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

/// What `UpdateAccount` can change.
const FIELDS: [&str; 3] = ["display_name", "locale", "default_tenant"];

/// The person who calls, or in whose name is called.
pub(super) fn person(ctx: &Ctx) -> Result<&SignedIn, Error> {
    ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))
}

fn account(user: &User, profile: &Profile) -> v1::Account {
    v1::Account {
        user: Some(convert::user(user)),
        email_verified: profile.email_verified_at.is_some(),
        locale: profile.locale.clone(),
        default_tenant_id: profile.default_tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
        password_change_time: profile.password_changed_at.map(convert::time),
        create_time: Some(convert::time(profile.created_at)),
        etag: etag(profile.version),
    }
}

pub(super) async fn get_account(
    s: &Services,
    request: Request<v1::GetAccountRequest>,
) -> Result<v1::GetAccountResponse, Error> {
    let (ctx, _, _, v1::GetAccountRequest {}) = s.0.open(request).await?;
    let person = person(&ctx)?;
    let profile = s.0.app.get_account(person).await?;
    Ok(v1::GetAccountResponse { account: Some(account(&person.user, &profile)) })
}

pub(super) async fn update_account(
    s: &Services,
    request: Request<v1::UpdateAccountRequest>,
) -> Result<v1::UpdateAccountResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let given = |path: &str| match path {
        "display_name" => !m.display_name.is_empty(),
        "locale" => !m.locale.is_empty(),
        _ => !m.default_tenant.is_empty(),
    };
    let paths: Vec<&str> = match &m.update_mask {
        Some(mask) if mask.paths == ["*"] => FIELDS.to_vec(),
        Some(mask) => mask.paths.iter().map(String::as_str).collect(),
        None => FIELDS.into_iter().filter(|path| given(path)).collect(),
    };
    let known = paths.len() <= 100 && paths.iter().all(|path| FIELDS.contains(path));
    let known =
        if known { Ok(()) } else { Err("must name fields that can change: display_name, locale, default_tenant") };
    f.read("update_mask", known);
    if paths.is_empty() {
        f.read("update_mask", Err::<(), _>("must say what changes when no field is given"));
    }
    let named = |path: &str| paths.contains(&path);
    let name = if named("display_name") { f.read("display_name", display_name(&m.display_name)) } else { None };
    let tag = if m.locale.is_empty() { Ok(()) } else { locale(&m.locale) };
    let chosen = if named("locale") { f.read("locale", tag).map(|()| m.locale.clone()) } else { None };
    let default = match m.default_tenant.as_str() {
        "" => Some(None),
        text if named("default_tenant") => f.read("default_tenant", TenantName::parse(text)).map(Some),
        _ => None,
    };
    let (Some(key), true) = (key, f.is_clean()) else { return Err(f.refuse()) };
    let default_tenant = match default.filter(|_| named("default_tenant")) {
        None => None,
        Some(None) => Some(None),
        Some(Some(name)) => {
            Some(Some(s.0.app.plane.look_at_rows().find(&name, ctx.now).await?.ok_or(Error::TenantNotFound)?))
        }
    };
    let changes = ProfileChanges { display_name: name, locale: chosen, default_tenant };
    let (user, profile) = s.0.app.update_account(&ctx, person(&ctx)?, changes, &m.etag, key).await?;
    Ok(v1::UpdateAccountResponse { account: Some(account(&user, &profile)) })
}

pub(super) async fn delete_account(
    s: &Services,
    request: Request<v1::DeleteAccountRequest>,
) -> Result<v1::DeleteAccountResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let person = person(&ctx)?;
    let mut f = Fields::default();
    f.request_key(&m.request_id, &m, &s.0.app.master);
    let same = Email::parse(&m.confirm_email).is_ok_and(|email| email == person.user.email);
    f.read("confirm_email", if same { Ok(()) } else { Err("must be the account's address") });
    if !f.is_clean() {
        return Err(f.refuse());
    }
    s.0.app.delete_account(&ctx, person).await?;
    Ok(v1::DeleteAccountResponse {})
}

pub(super) async fn disable_account(
    s: &Services,
    request: Request<v1::DisableAccountRequest>,
) -> Result<v1::DisableAccountResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = set_enabled(s, &ctx, (f, &m.user_id), false).await?;
    Ok(v1::DisableAccountResponse { user: Some(convert::user(&user)) })
}

pub(super) async fn enable_account(
    s: &Services,
    request: Request<v1::EnableAccountRequest>,
) -> Result<v1::EnableAccountResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = set_enabled(s, &ctx, (f, &m.user_id), true).await?;
    Ok(v1::EnableAccountResponse { user: Some(convert::user(&user)) })
}

async fn set_enabled(s: &Services, ctx: &Ctx, (mut f, user_id): (Fields, &str), enabled: bool) -> Result<User, Error> {
    let (Some(user_id), true) = (f.user_id("user_id", user_id), f.is_clean()) else { return Err(f.refuse()) };
    s.0.app.set_account_enabled(ctx, user_id, enabled).await
}
