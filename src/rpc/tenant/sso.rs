//! The connection with a tenant's own identity provider.

use std::sync::Arc;

use tonic::Request;
use url::Url;

use crate::app::mutation::etag;
use crate::domain::domain::DomainName;
use crate::domain::role::Roles;
use crate::domain::secret::Secret;
use crate::domain::sso::{self, GroupRole, LONGEST, MOST, MOST_GROUPS, SsoConnection, Terms};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

/// Bytes of a client secret.
const LONGEST_SECRET: usize = 4 * 1024;

pub(super) async fn get_sso_connection(
    s: &Services,
    request: Request<v1::GetSsoConnectionRequest>,
) -> Result<v1::GetSsoConnectionResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let connection = s.0.app.get_sso_connection(&t).await?;
    Ok(v1::GetSsoConnectionResponse { connection: Some(message(&connection, &t.roles)) })
}

/// The secret is no part of what a `request_id` stands for, as passwords are not.
pub(super) async fn set_sso_connection(
    s: &Services,
    request: Request<v1::SetSsoConnectionRequest>,
) -> Result<v1::SetSsoConnectionResponse, Error> {
    let (t, mut m) = s.0.enter(request).await?;
    let secret = std::mem::take(&mut m.client_secret);
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let fits = if secret.len() <= LONGEST_SECRET { Ok(()) } else { Err("must be at most 4 KiB") };
    let fits = f.read("client_secret", fits);
    let terms = terms(&mut f, s, &t.roles, &m.connection.unwrap_or_default());
    let (Some(key), Some(()), Some(terms)) = (key, fits, terms) else { return Err(f.refuse()) };
    let secret = (!secret.is_empty()).then(|| Secret::new(secret));
    let done = s.0.app.set_sso_connection(&t, terms, secret, &m.etag, key).await?;
    Ok(v1::SetSsoConnectionResponse { connection: Some(message(&done, &t.roles)) })
}

pub(super) async fn delete_sso_connection(
    s: &Services,
    request: Request<v1::DeleteSsoConnectionRequest>,
) -> Result<v1::DeleteSsoConnectionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    s.0.app.delete_sso_connection(&t, key).await?;
    Ok(v1::DeleteSsoConnectionResponse {})
}

pub(super) async fn test_sso_connection(
    s: &Services,
    request: Request<v1::TestSsoConnectionRequest>,
) -> Result<v1::TestSsoConnectionResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let issuer = if m.issuer.is_empty() { Some(None) } else { issuer(&mut f, s, "issuer", &m.issuer).map(Some) };
    let Some(issuer) = issuer else { return Err(f.refuse()) };
    let tried = s.0.app.test_sso_connection(&t, issuer.as_deref()).await?;
    Ok(v1::TestSsoConnectionResponse {
        reachable: tried.keys.is_some(),
        problem: tried.problem,
        keys: tried.keys.and_then(|keys| i32::try_from(keys).ok()).unwrap_or(0),
    })
}

/// Reads a connection, noting everything that is wrong with it.
fn terms(f: &mut Fields, s: &Services, roles: &Roles, m: &v1::SsoConnection) -> Option<Terms> {
    let issuer = issuer(f, s, "connection.issuer", &m.issuer);
    let client = (1..=LONGEST).contains(&m.client_id.len()) && m.client_id.bytes().all(|b| b.is_ascii_graphic());
    let client = if client { Ok(()) } else { Err("must be 1 to 500 printable ASCII characters without blanks") };
    f.read("connection.client_id", client);
    let scopes = list(f, "connection.scopes", &m.scopes, 0, sso::scope);
    let redirects = list(f, "connection.redirect_uris", &m.redirect_uris, 1, redirect_uri);
    let claim = f.read("connection.group_claim", sso::claim(&m.group_claim));
    let domains = list(f, "connection.domains", &m.domains, 0, DomainName::parse);
    let default_role = match roles.default() {
        Some(role) if m.default_role.is_empty() => Some(role),
        _ => f.read("connection.default_role", roles.parse(&m.default_role)),
    };
    let count = if m.group_roles.len() <= MOST_GROUPS { Ok(()) } else { Err("must be at most 100") };
    f.read("connection.group_roles", count);
    let mut group_roles = Vec::new();
    for (i, one) in m.group_roles.iter().take(MOST_GROUPS).enumerate() {
        let group = f.read(&format!("connection.group_roles[{i}].group"), sso::group(&one.group));
        let role = f.read(&format!("connection.group_roles[{i}].role"), roles.parse(&one.role));
        group_roles.extend(group.zip(role).map(|(group, role)| GroupRole { group, role: role.name.clone() }));
    }
    if !m.group_roles.is_empty() && m.group_claim.is_empty() {
        f.read::<()>("connection.group_claim", Err("must be said, so that it is clear where groups stand"));
    }
    if !f.is_clean() {
        return None;
    }
    let scopes = scopes?;
    Some(Terms {
        issuer: issuer?,
        client_id: m.client_id.clone(),
        scopes: if scopes.is_empty() { vec!["email".to_owned(), "profile".to_owned()] } else { scopes },
        redirect_uris: redirects?,
        group_claim: claim?,
        group_roles,
        default_role: default_role?.name.clone(),
        domains: domains?,
        required: m.required,
    })
}

/// An issuer: an address that may be called, in the provider's own spelling, which is compared letter by letter.
fn issuer(f: &mut Fields, s: &Services, field: &str, text: &str) -> Option<String> {
    let url = address(text).and_then(|url| {
        let bare = url.query().is_none() && url.fragment().is_none();
        if bare { Ok(url) } else { Err("must be without query and fragment") }
    });
    f.read(field, url.and_then(|url| s.0.app.oidc.http().reach().check(&url)))?;
    Some(text.to_owned())
}

/// An address of the product, or of its application on a device.
fn redirect_uri(text: &str) -> Result<String, &'static str> {
    let url = address(text)?;
    let web = url.scheme() == "https" || (url.scheme() == "http" && is_local(&url));
    // RFC 8252: an application's own scheme is a domain of its maker, backwards.
    let own = url.scheme().contains('.');
    match (web || own, url.fragment()) {
        (true, None) => Ok(text.to_owned()),
        _ => Err("must be https, http to this machine, or an application's own scheme, without fragment"),
    }
}

fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn address(text: &str) -> Result<Url, &'static str> {
    let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let url = Url::parse(text).ok().filter(|_| fits);
    url.ok_or("must be an address of at most 500 characters")
}

/// Reads each of a list.
fn list<T>(
    f: &mut Fields,
    field: &str,
    texts: &[String],
    least: usize,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<Vec<T>> {
    let count = if (least..=MOST).contains(&texts.len()) {
        Ok(())
    } else {
        Err(if least == 0 { "must be at most 10" } else { "must be 1 to 10" })
    };
    f.read(field, count)?;
    let all: Vec<Option<T>> =
        texts.iter().enumerate().map(|(i, text)| f.read(&format!("{field}[{i}]"), read(text))).collect();
    all.into_iter().collect()
}

fn message(connection: &SsoConnection, roles: &Arc<Roles>) -> v1::SsoConnection {
    let terms = &connection.terms;
    let group = |one: &GroupRole| v1::GroupRole { group: one.group.clone(), role: one.role.as_str().to_owned() };
    v1::SsoConnection {
        issuer: terms.issuer.clone(),
        client_id: terms.client_id.clone(),
        has_client_secret: connection.has_secret,
        scopes: terms.scopes.clone(),
        redirect_uris: terms.redirect_uris.clone(),
        group_claim: terms.group_claim.clone(),
        group_roles: terms.group_roles.iter().map(group).collect(),
        default_role: terms.default_role.as_str().to_owned(),
        domains: terms.domains.iter().map(|domain| domain.as_str().to_owned()).collect(),
        required: terms.required,
        highest_role: connection.ceiling.highest(roles).map(|role| role.name.as_str().to_owned()).unwrap_or_default(),
        update_time: Some(convert::time(connection.updated_at)),
        etag: etag(connection.version),
    }
}
