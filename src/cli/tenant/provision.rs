//! `tenantry tenant provision`: a tenant with everything in it, by one command.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use prost_types::Duration;

use super::end::undone;
use super::{Tenants, facts};
use crate::cli::connect::repeatable;
use crate::cli::output::{Output, present, sheet, word};
use crate::cli::settings::from_file;
use crate::cli::table::{plain, table};
use crate::cli::{CliError, request_id};
use crate::rpc::v1::{
    BillingCycle, ProvisionOutcome, ProvisionStep, ProvisionTenantRequest, ProvisionTenantResponse, Settings,
};

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(after_help = "\
Examples:
  tenantry tenant provision --slug acme --name 'Acme Ltd' --admin-email ada@example.com
  tenantry tenant provision --slug acme --name 'Acme Ltd' --admin-email ada@example.com --plan pro --cycle year \\
    --trial-days 14 --feature sso --locale de-DE --time-zone Europe/Berlin --dry-run
Repeated for the same slug and administrator it does what is missing, and says what was there.")]
pub(super) struct Provision {
    /// Name in URLs: 3 to 63 lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Name that people see
    #[arg(long)]
    name: String,
    /// E-mail address of the administrator; an account is made when there is none
    #[arg(long, value_name = "EMAIL")]
    admin_email: String,
    /// The administrator's name, for a new account
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    admin_name: String,
    /// Template of the catalogue, used where nothing is said here
    #[arg(long, default_value = "", hide_default_value = true)]
    template: String,
    /// Plan; the template's or the catalogue's default unless said
    #[arg(long, default_value = "", hide_default_value = true)]
    plan: String,
    /// How long a period is; the shortest that the plan has a price for unless said
    #[arg(long)]
    cycle: Option<Cycle>,
    /// Days of trial, 0 for none; as the plan says unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=365))]
    trial_days: Option<i64>,
    /// A feature to switch on, besides the plan's; may be said again
    #[arg(long = "feature", value_name = "NAME")]
    features: Vec<String>,
    /// The id that another system knows it by
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    external_id: String,
    /// For showing, not for work
    #[arg(long)]
    demo: bool,
    /// Leave it pending until `tenant activate`
    #[arg(long)]
    pending: bool,
    /// Invite the administrator instead of making an account: the tenant begins when they accept
    #[arg(long, conflicts_with = "pending")]
    invite_admin: bool,
    /// Send no welcome mail, or no invitation: its link is printed
    #[arg(long)]
    no_welcome_mail: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: Wanted,
}

/// Settings of the new tenant.
#[derive(Args, Debug)]
#[command(next_help_heading = "Settings")]
struct Wanted {
    /// JSON file of settings, as in the contract; the flags below come before it
    #[arg(long = "settings", value_name = "FILE.json")]
    file: Option<PathBuf>,
    /// Language, such as en-US
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// Time zone, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Currency, such as EUR
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// How dates look, such as YYYY-MM-DD
    #[arg(long, value_name = "FORMAT")]
    date_format: Option<String>,
    /// Whom to write to
    #[arg(long, value_name = "NAME")]
    contact_name: Option<String>,
    /// Their e-mail address
    #[arg(long, value_name = "EMAIL")]
    contact_email: Option<String>,
    /// Their telephone number
    #[arg(long, value_name = "NUMBER")]
    contact_phone: Option<String>,
    /// Logo, an https address
    #[arg(long, value_name = "URL")]
    logo_url: Option<String>,
    /// Colour, such as #3366cc
    #[arg(long, value_name = "COLOR")]
    primary_color: Option<String>,
    /// Theme of the product
    #[arg(long, value_name = "NAME")]
    theme: Option<String>,
    /// How long a session lasts at most
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(i64).range(1..=8760))]
    session_hours: Option<i64>,
    /// Ask members for a second factor
    #[arg(long)]
    mfa_required: bool,
}

/// How long a paid period is.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub(in crate::cli) enum Cycle {
    /// A month
    Month,
    /// A year
    Year,
}

impl Cycle {
    /// As the contract has it; 0 when not said.
    pub(in crate::cli) fn number(cycle: Option<Self>) -> i32 {
        match cycle {
            None => BillingCycle::Unspecified,
            Some(Self::Month) => BillingCycle::Month,
            Some(Self::Year) => BillingCycle::Year,
        }
        .into()
    }
}

impl Provision {
    pub(super) async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let request = ProvisionTenantRequest {
            request_id: request_id(),
            display_name: self.name,
            slug: self.slug,
            template: self.template,
            plan: self.plan,
            cycle: Cycle::number(self.cycle),
            trial: self.trial_days.map(|days| Duration { seconds: days * 86_400, nanos: 0 }),
            admin_email: self.admin_email,
            admin_name: self.admin_name,
            settings: Some(self.settings.settings()?),
            features: self.features,
            external_id: self.external_id,
            demo: self.demo,
            pending: self.pending,
            skip_welcome_mail: self.no_welcome_mail,
            invite_admin: self.invite_admin,
            validate_only: self.dry_run,
        };
        let answer = repeatable!(client.provision_tenant(request))?;
        let row = present(answer.tenant.clone())?;
        out.one("ProvisionTenantResponse", &answer, |answer| {
            let made = format!("{}\n\n{}", steps(&answer.steps), facts(&row));
            format!("{made}\n\n{}{}", administrator(answer), undone(self.dry_run))
        })
    }
}

impl Wanted {
    /// The file's settings with the flags over them.
    fn settings(self) -> Result<Settings, CliError> {
        let mut settings = match self.file {
            Some(path) => from_file("--settings", &path)?.0,
            None => Settings::default(),
        };
        put(&mut settings.locale, self.locale);
        put(&mut settings.time_zone, self.time_zone);
        put(&mut settings.currency, self.currency);
        put(&mut settings.date_format, self.date_format);
        if self.contact_name.is_some() || self.contact_email.is_some() || self.contact_phone.is_some() {
            let contact = settings.contact.get_or_insert_default();
            put(&mut contact.name, self.contact_name);
            put(&mut contact.email, self.contact_email);
            put(&mut contact.phone, self.contact_phone);
        }
        if self.logo_url.is_some() || self.primary_color.is_some() || self.theme.is_some() {
            let branding = settings.branding.get_or_insert_default();
            put(&mut branding.logo_url, self.logo_url);
            put(&mut branding.primary_color, self.primary_color);
            put(&mut branding.theme, self.theme);
        }
        if let Some(hours) = self.session_hours {
            let length = Duration { seconds: hours * 3600, nanos: 0 };
            settings.security.get_or_insert_default().session_length = Some(length);
        }
        if self.mfa_required {
            settings.security.get_or_insert_default().mfa_required = Some(true);
        }
        Ok(settings)
    }
}

fn put(place: &mut String, said: Option<String>) {
    if let Some(text) = said {
        *place = text;
    }
}

/// The steps as a table.
pub(super) fn steps(steps: &[ProvisionStep]) -> String {
    let cells = |step: &ProvisionStep| {
        let outcome = word(step.outcome, "PROVISION_OUTCOME_", ProvisionOutcome::as_str_name);
        [step.step.clone(), outcome, step.detail.clone()]
    };
    table(["step", "outcome", "detail"], steps.iter().map(cells))
}

/// Who administers it, and the password this once.
fn administrator(answer: &ProvisionTenantResponse) -> String {
    let admin = answer.admin.clone().unwrap_or_default();
    let facts = sheet(&[("admin", admin.email.clone()), ("admin id", admin.user_id)]);
    if !answer.invitation_link.is_empty() {
        let (email, link) = (plain(&admin.email), plain(&answer.invitation_link));
        return format!("{facts}\n\nThe invitation of {email}, shown this once and never again:\n\n    {link}\n");
    }
    if answer.admin_password.is_empty() {
        return facts;
    }
    let (email, password) = (plain(&admin.email), plain(&answer.admin_password));
    format!("{facts}\n\nThe password of {email}, shown this once and never again:\n\n    {password}\n")
}
