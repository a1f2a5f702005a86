//! Settings: what a tenant chooses for itself. One sparse type serves as the catalogue's defaults, as what a tenant has set
//! itself, and, one laid over the other, as what holds. What is allowed in it stands in `settings/check.rs`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod check;

pub use check::{json_object, locale};

/// The type of one part of the settings: each leaf may be absent. What is laid over what, and which leaves there are,
/// follows from the fields, so that a new one cannot be forgotten.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }

        impl $name {
            const LEAVES: &[&str] = &[$(stringify!($field)),*];

            fn over(&self, defaults: &Self) -> Self {
                Self { $($field: self.$field.clone().or_else(|| defaults.$field.clone()),)* }
            }

            /// Whether nothing in it is set.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_none())&&*
            }
        }
    };
}

section! {
    /// Whom to write to.
    Contact {
        /// The person's name.
        name: String,
        /// E-mail address.
        email: String,
        /// Telephone number, as people write it.
        phone: String,
        /// Postal address.
        address: String,
        /// Web site.
        website: String,
    }
}

section! {
    /// Whom to bill.
    Billing {
        /// Name of the company or person.
        name: String,
        /// E-mail address for invoices.
        email: String,
        /// Postal address.
        address: String,
        /// VAT or other tax number.
        tax_id: String,
        /// What the customer wants on invoices.
        reference: String,
    }
}

section! {
    /// How it looks.
    Branding {
        /// Where the logo is.
        logo_url: String,
        /// `#rrggbb`.
        primary_color: String,
        /// `#rrggbb`.
        secondary_color: String,
        /// Style sheet.
        css: String,
        /// Name of a theme of the product.
        theme: String,
    }
}

section! {
    /// How members sign in.
    Security {
        /// How long a session lasts at most, in seconds.
        session_length_seconds: i64,
        /// Wrong passwords in a row before sign-in is slowed; the server's own when 0.
        max_sign_in_attempts: i32,
        /// Whether a second factor is asked for.
        mfa_required: bool,
        /// Allowed ways to sign in; all when empty.
        sign_in_methods: Vec<String>,
        /// Days after which a password must be changed; never when 0.
        password_expiry_days: i32,
    }
}

section! {
    /// Which rules it is under.
    Compliance {
        /// Children's Online Privacy Protection Act.
        coppa: bool,
        /// Family Educational Rights and Privacy Act.
        ferpa: bool,
        /// General Data Protection Regulation.
        gdpr: bool,
        /// Whether parents must consent.
        parental_consent_required: bool,
        /// Days for which usage events are kept; the plan's own when 0.
        retention_days: i32,
        /// Whether reads are audited as well as changes.
        audit_reads: bool,
    }
}

section! {
    /// Who may join by themselves.
    AutoJoin {
        /// Whether anybody may.
        enabled: bool,
        /// The role that they get.
        role: String,
    }
}

section! {
    /// How people are invited.
    Invitations {
        /// Days for which an invitation holds.
        expiry_days: i32,
    }
}

/// The settings of a tenant, or the defaults of a catalogue: what is absent is not set here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// BCP 47, such as `en-US`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// IANA name, such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// For people, such as `YYYY-MM-DD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_format: Option<String>,
    /// Whom to write to.
    #[serde(skip_serializing_if = "Contact::is_empty")]
    pub contact: Contact,
    /// Whom to bill.
    #[serde(skip_serializing_if = "Billing::is_empty")]
    pub billing: Billing,
    /// How it looks.
    #[serde(skip_serializing_if = "Branding::is_empty")]
    pub branding: Branding,
    /// How its members sign in.
    #[serde(skip_serializing_if = "Security::is_empty")]
    pub security: Security,
    /// Which rules it is under.
    #[serde(skip_serializing_if = "Compliance::is_empty")]
    pub compliance: Compliance,
    /// Who may join by themselves.
    #[serde(skip_serializing_if = "AutoJoin::is_empty")]
    pub auto_join: AutoJoin,
    /// How people are invited.
    #[serde(skip_serializing_if = "Invitations::is_empty")]
    pub invitations: Invitations,
    /// Whether owners are sent what was used: `off` or `monthly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_report: Option<String>,
    /// Whatever else the product keeps.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub custom: Map<String, Value>,
}

/// The leaves that are no part of a section. `custom` counts as one leaf.
const TOP: [&str; 6] = ["locale", "time_zone", "currency", "date_format", "usage_report", "custom"];

/// The sections with their leaves.
const SECTIONS: [(&str, &[&str]); 7] = [
    ("contact", Contact::LEAVES),
    ("billing", Billing::LEAVES),
    ("branding", Branding::LEAVES),
    ("security", Security::LEAVES),
    ("compliance", Compliance::LEAVES),
    ("auto_join", AutoJoin::LEAVES),
    ("invitations", Invitations::LEAVES),
];

impl Settings {
    /// What holds: these over `defaults`, leaf by leaf, `custom` by its outermost keys.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        let text = |own: &Option<String>, default: &Option<String>| own.clone().or_else(|| default.clone());
        let mut custom = defaults.custom.clone();
        custom.extend(self.custom.clone());
        Self {
            locale: text(&self.locale, &defaults.locale),
            time_zone: text(&self.time_zone, &defaults.time_zone),
            currency: text(&self.currency, &defaults.currency),
            date_format: text(&self.date_format, &defaults.date_format),
            contact: self.contact.over(&defaults.contact),
            billing: self.billing.over(&defaults.billing),
            branding: self.branding.over(&defaults.branding),
            security: self.security.over(&defaults.security),
            compliance: self.compliance.over(&defaults.compliance),
            auto_join: self.auto_join.over(&defaults.auto_join),
            invitations: self.invitations.over(&defaults.invitations),
            usage_report: text(&self.usage_report, &defaults.usage_report),
            custom,
        }
    }

    /// Whether owners are sent what was used each month.
    #[must_use]
    pub fn is_reported_monthly(&self) -> bool {
        self.usage_report.as_deref() == Some("monthly")
    }

    /// The paths of the leaves that are set, such as `branding.css`, in the order of their names.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.leaves().into_iter().map(|(path, _)| path).collect()
    }

    /// The leaves that are set, each with its path and value, in the order of their names.
    #[must_use]
    pub fn leaves(&self) -> Vec<(String, Value)> {
        let mut leaves = Vec::new();
        for (name, value) in self.object() {
            match value {
                Value::Object(section) if name != "custom" => {
                    leaves.extend(section.into_iter().map(|(leaf, value)| (format!("{name}.{leaf}"), value)));
                }
                leaf => leaves.push((name, leaf)),
            }
        }
        leaves
    }

    /// Whether a mask may name this: a leaf such as `branding.css`, a section, `custom` as a whole, or `*`.
    #[must_use]
    pub fn has(path: &str) -> bool {
        if path == "*" || TOP.contains(&path) {
            return true;
        }
        let (section, leaf) = path.split_once('.').map_or((path, None), |(section, leaf)| (section, Some(leaf)));
        let known = SECTIONS.iter().find(|(name, _)| *name == section);
        known.is_some_and(|(_, leaves)| leaf.is_none_or(|leaf| leaves.contains(&leaf)))
    }

    /// `own` with the fields that `paths` name taken from `new` (AIP-134). What is named and absent in `new` is absent afterwards, so that the default holds again.
    ///
    /// # Errors
    /// The first path that names no setting.
    pub fn masked(own: &Self, new: &Self, paths: &[String]) -> Result<Self, String> {
        if let Some(unknown) = paths.iter().find(|path| !Self::has(path)) {
            return Err(unknown.clone());
        }
        let (mut result, given) = (own.object(), new.object());
        for path in paths {
            match path.split_once('.') {
                _ if path == "*" => result.clone_from(&given),
                None => put(&mut result, path, given.get(path)),
                Some((section, leaf)) => {
                    let value = given.get(section).and_then(|section| section.get(leaf));
                    let inner = result.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(inner) = inner {
                        put(inner, leaf, value);
                    }
                }
            }
        }
        serde_json::from_value(Value::Object(result)).map_err(|_| paths.join(","))
    }

    /// As JSON: an object, because it is a struct, whose values are all plain.
    fn object(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
}

fn put(object: &mut Map<String, Value>, key: &str, value: Option<&Value>) {
    match value {
        Some(value) => object.insert(key.to_owned(), value.clone()),
        None => object.remove(key),
    };
}

/// Ways to sign in: a set of those that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignInMethods([bool; 3]);

impl SignInMethods {
    /// The ways that there are.
    pub const ALL: [&str; 3] = ["password", "oidc", "api_key"];

    /// Those of a setting; all when it is empty.
    #[must_use]
    pub fn of(names: &[String]) -> Self {
        Self(Self::ALL.map(|method| names.is_empty() || names.iter().any(|name| name == method)))
    }

    /// Whether one is among them.
    #[must_use]
    pub fn contains(self, method: &str) -> bool {
        self.names().any(|name| name == method)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().zip(self.0).filter_map(|(name, there)| there.then_some(name))
    }
}

#[cfg(test)]
mod tests;
