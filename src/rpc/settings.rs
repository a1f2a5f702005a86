//! Settings as messages and back. In a message an empty text is the same as nothing: such a field is not set, and the
//! default holds.

use prost_types::Duration;

use super::fields::Fields;
use super::{json, v1};
use crate::domain::role::Roles;
use crate::domain::settings::{AutoJoin, Billing, Branding, Compliance, Contact, Invitations, Security, Settings};

/// The one leaf that a message and a row call by different names.
const IN_MESSAGE: &str = "security.session_length";
const IN_ROW: &str = "security.session_length_seconds";

/// The path of a leaf as a message's mask has it.
pub(super) fn message_path(path: &str) -> String {
    if path == IN_ROW { IN_MESSAGE.to_owned() } else { path.to_owned() }
}

/// The path of a leaf as the domain has it; a name that only rows have is none.
pub(super) fn domain_path(path: &str) -> String {
    match path {
        IN_MESSAGE => IN_ROW.to_owned(),
        IN_ROW => String::new(),
        other => other.to_owned(),
    }
}

/// Reads a message. What cannot be read at all is noted; bounds are for `check`.
pub(super) fn read(f: &mut Fields, message: v1::Settings) -> Settings {
    let contact = message.contact.unwrap_or_default();
    let billing = message.billing.unwrap_or_default();
    let branding = message.branding.unwrap_or_default();
    let compliance = message.compliance.unwrap_or_default();
    let auto_join = message.auto_join.unwrap_or_default();
    Settings {
        locale: text(message.locale),
        time_zone: text(message.time_zone),
        currency: text(message.currency),
        date_format: text(message.date_format),
        usage_report: text(message.usage_report),
        contact: Contact {
            name: text(contact.name),
            email: text(contact.email),
            phone: text(contact.phone),
            address: text(contact.address),
            website: text(contact.website),
        },
        billing: Billing {
            name: text(billing.name),
            email: text(billing.email),
            address: text(billing.address),
            tax_id: text(billing.tax_id),
            reference: text(billing.reference),
        },
        branding: Branding {
            logo_url: text(branding.logo_url),
            primary_color: text(branding.primary_color),
            secondary_color: text(branding.secondary_color),
            css: text(branding.css),
            theme: text(branding.theme),
        },
        security: security(f, message.security.unwrap_or_default()),
        compliance: Compliance {
            coppa: compliance.coppa,
            ferpa: compliance.ferpa,
            gdpr: compliance.gdpr,
            parental_consent_required: compliance.parental_consent_required,
            retention_days: compliance.retention_days,
            audit_reads: compliance.audit_reads,
        },
        auto_join: AutoJoin { enabled: auto_join.enabled, role: text(auto_join.role) },
        invitations: Invitations { expiry_days: message.invitations.unwrap_or_default().expiry_days },
        custom: f.read("settings.custom", json::object(message.custom)).unwrap_or_default(),
    }
}

fn security(f: &mut Fields, message: v1::SecurityPolicy) -> Security {
    let seconds = message.session_length.map(|length| match length.nanos {
        0 => Ok(length.seconds),
        _ => Err("must be whole seconds"),
    });
    Security {
        session_length_seconds: seconds.and_then(|seconds| f.read("settings.security.session_length", seconds)),
        max_sign_in_attempts: message.max_sign_in_attempts,
        mfa_required: message.mfa_required,
        sign_in_methods: Some(message.sign_in_methods).filter(|methods| !methods.is_empty()),
        password_expiry_days: message.password_expiry_days,
    }
}

/// Notes everything in settings of a request that is out of bounds, by the name of its field.
pub(super) fn check(f: &mut Fields, settings: &Settings, roles: &Roles) {
    for (path, problem) in settings.problems() {
        f.read::<()>(&format!("settings.{}", message_path(&path)), Err(problem));
    }
    if let Some(problem) = settings.role_problem(roles) {
        f.read::<()>("settings.auto_join.role", Err(problem));
    }
}

/// How a tenant looks, as a message.
pub(super) fn branding(branding: &Branding) -> v1::Branding {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    v1::Branding {
        logo_url: of(&branding.logo_url),
        primary_color: of(&branding.primary_color),
        secondary_color: of(&branding.secondary_color),
        css: of(&branding.css),
        theme: of(&branding.theme),
    }
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Writes a message.
pub(super) fn message(settings: &Settings) -> v1::Settings {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (contact, billing) = (&settings.contact, &settings.billing);
    let (security, compliance) = (&settings.security, &settings.compliance);
    v1::Settings {
        locale: of(&settings.locale),
        time_zone: of(&settings.time_zone),
        currency: of(&settings.currency),
        date_format: of(&settings.date_format),
        usage_report: of(&settings.usage_report),
        contact: (!contact.is_empty()).then(|| v1::Contact {
            name: of(&contact.name),
            email: of(&contact.email),
            phone: of(&contact.phone),
            address: of(&contact.address),
            website: of(&contact.website),
        }),
        billing: (!billing.is_empty()).then(|| v1::BillingDetails {
            name: of(&billing.name),
            email: of(&billing.email),
            address: of(&billing.address),
            tax_id: of(&billing.tax_id),
            reference: of(&billing.reference),
        }),
        branding: (!settings.branding.is_empty()).then(|| branding(&settings.branding)),
        security: (!security.is_empty()).then(|| v1::SecurityPolicy {
            session_length: security.session_length_seconds.map(|seconds| Duration { seconds, nanos: 0 }),
            max_sign_in_attempts: security.max_sign_in_attempts,
            mfa_required: security.mfa_required,
            sign_in_methods: security.sign_in_methods.clone().unwrap_or_default(),
            password_expiry_days: security.password_expiry_days,
        }),
        compliance: (!compliance.is_empty()).then_some(v1::Compliance {
            coppa: compliance.coppa,
            ferpa: compliance.ferpa,
            gdpr: compliance.gdpr,
            parental_consent_required: compliance.parental_consent_required,
            retention_days: compliance.retention_days,
            audit_reads: compliance.audit_reads,
        }),
        auto_join: (!settings.auto_join.is_empty())
            .then(|| v1::AutoJoin { enabled: settings.auto_join.enabled, role: of(&settings.auto_join.role) }),
        invitations: (!settings.invitations.is_empty())
            .then_some(v1::InvitationPolicy { expiry_days: settings.invitations.expiry_days }),
        custom: (!settings.custom.is_empty()).then(|| json::message(&settings.custom)),
    }
}
