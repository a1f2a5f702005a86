//! `tenantry plan`: the price list, and which plan a tenant is on.

use std::io::Write;

use clap::{Args, Subcommand};

use super::confirm::Confirm;
use super::connect::{Connect, Tenants, repeatable};
use super::output::{Output, cycle, money, number, present, sheet, time, word};
use super::table::{plain, table};
use super::tenant::{Cycle, get};
use super::{CliError, request_id};
use crate::rpc::v1::{
    CancelSubscriptionRequest, ChangePlanRequest, ChangePlanResponse, EffectiveWhen, GetSubscriptionRequest,
    ListPlansRequest, OverLimit, PauseSubscriptionRequest, Plan as Row, Price, RenewSubscriptionRequest,
    ResumeSubscriptionRequest, Subscription, SubscriptionStatus,
};

/// Flags of `tenantry plan`.
#[derive(Args, Debug)]
pub(super) struct Plan {
    #[command(subcommand)]
    action: Action,

    /// Print JSON, for scripts: one object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the public price list, cheapest first
    List,
    /// Show a tenant's subscription
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Change a tenant's plan, after saying what it would exceed, lose and gain
    Change(Change),
    /// End a tenant's subscription; the tenant is then closed, and kept
    Cancel(Cancel),
    /// Take a cancellation or a pause back
    Resume {
        /// Slug or id
        tenant: String,
    },
    /// Let a subscription stand still, and the tenant with it
    Pause {
        /// Slug or id
        tenant: String,
    },
    /// Add one period, as if paid
    Renew {
        /// Slug or id
        tenant: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry plan change acme pro --dry-run
  tenantry plan change acme pro --cycle year
  tenantry plan change acme free --at-period-end")]
struct Change {
    /// Slug or id
    tenant: String,
    /// The plan
    plan: String,
    /// How long a period is; as it is, or else the shortest that the plan has a price for, unless said
    #[arg(long)]
    cycle: Option<Cycle>,
    /// When the current period ends, instead of at once
    #[arg(long)]
    at_period_end: bool,
    /// Although more is in use than the plan allows
    #[arg(long)]
    allow_exceeding: bool,
    /// Only say what would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Cancel {
    /// Slug or id
    tenant: String,
    /// When the current period ends, instead of at once
    #[arg(long)]
    at_period_end: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
}

impl Plan {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Cancel(cancel) = &self.action {
            cancel.confirm.possible()?;
        }
        let client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        let row = match self.action {
            Action::List => return list(client, out).await,
            Action::Change(change) => return change.run(client, out).await,
            Action::Cancel(cancel) => cancel.run(client).await?,
            Action::Show { tenant } => {
                client.clone().get_subscription(GetSubscriptionRequest { tenant }).await?.into_inner().subscription
            }
            Action::Resume { tenant } => {
                let request = ResumeSubscriptionRequest { tenant, request_id: request_id() };
                repeatable!(client.resume_subscription(request))?.subscription
            }
            Action::Pause { tenant } => {
                let request = PauseSubscriptionRequest { tenant, request_id: request_id() };
                repeatable!(client.pause_subscription(request))?.subscription
            }
            Action::Renew { tenant } => {
                let request = RenewSubscriptionRequest { tenant, request_id: request_id() };
                repeatable!(client.renew_subscription(request))?.subscription
            }
        };
        out.one("Subscription", &present(row)?, facts)
    }
}

/// The price list.
async fn list(mut client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
    let plans = client.list_plans(ListPlansRequest {}).await?.into_inner().plans;
    out.many("Plan", &plans, ["plan", "version", "name", "price", "trial", "seats", "features"], |plan: &Row| {
        let price = |price: &Price| format!("{} a {}", money(price.amount, &plan.currency), cycle(price.cycle));
        let prices: Vec<_> = plan.prices.iter().map(price).collect();
        let trial = if plan.trial_days == 0 { "none".to_owned() } else { format!("{} days", plan.trial_days) };
        [
            plan.plan.clone(),
            plan.version.to_string(),
            plan.display_name.clone(),
            if prices.is_empty() { "free".to_owned() } else { prices.join(", ") },
            trial,
            number(plan.seats, "unlimited"),
            plan.features.len().to_string(),
        ]
    })
}

impl Change {
    async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let when = if self.at_period_end { EffectiveWhen::PeriodEnd } else { EffectiveWhen::Now };
        let request = ChangePlanRequest {
            tenant: self.tenant,
            request_id: request_id(),
            plan: self.plan,
            cycle: Cycle::number(self.cycle),
            when: when.into(),
            allow_exceeding: self.allow_exceeding,
            validate_only: true,
            ..Default::default()
        };
        let preview = repeatable!(client.change_plan(request.clone()))?;
        if self.dry_run {
            return out.one("ChangePlanResponse", &preview, |preview| {
                let row = preview.subscription.clone().unwrap_or_default();
                format!("{}\n{}\n\nNothing was done: --dry-run.", changes(preview), facts(&row))
            });
        }
        out.say(&changes(&preview))?;
        let request = ChangePlanRequest { request_id: request_id(), validate_only: false, ..request };
        let answer = repeatable!(client.change_plan(request))?;
        let row = present(answer.subscription.clone())?;
        out.one("ChangePlanResponse", &answer, |_| facts(&row))
    }
}

/// What a change of plan means, for people.
fn changes(answer: &ChangePlanResponse) -> String {
    let said = |names: &[String]| if names.is_empty() { "nothing".to_owned() } else { plain(&names.join(", ")).into() };
    let (lost, gained) = (said(&answer.lost_features), said(&answer.gained_features));
    let features = format!("Features lost: {lost}\nFeatures gained: {gained}\n");
    if answer.exceeded.is_empty() {
        return features;
    }
    let cells = |over: &OverLimit| [over.metric.clone(), over.used.to_string(), over.limit.to_string()];
    let exceeded = table(["metric", "used", "limit"], answer.exceeded.iter().map(cells));
    format!("In use beyond what the plan allows:\n{exceeded}\n{features}")
}

impl Cancel {
    async fn run(self, client: Tenants) -> Result<Option<Subscription>, CliError> {
        let tenant = get(&client, &self.tenant).await?;
        let (when, what) = if self.at_period_end {
            (EffectiveWhen::PeriodEnd, "cancels a tenant's subscription, and closes it when the period ends")
        } else {
            (EffectiveWhen::Now, "cancels a tenant's subscription, and closes it at once")
        };
        self.confirm.ask(&tenant, what)?;
        let request = CancelSubscriptionRequest {
            tenant: tenant.tenant_id,
            request_id: request_id(),
            when: when.into(),
            reason: self.reason,
        };
        Ok(repeatable!(client.cancel_subscription(request))?.subscription)
    }
}

/// A subscription for people, a fact a line.
fn facts(row: &Subscription) -> String {
    let priced = !row.currency.is_empty();
    let ids = row.provider_ids.clone().unwrap_or_default();
    let next =
        if row.next_plan.is_empty() { String::new() } else { format!("{} {}", row.next_plan, cycle(row.next_cycle)) };
    let ends = row.period_end_time.is_some();
    sheet(&[
        ("plan", format!("{}, version {}", row.plan, row.plan_version)),
        ("status", word(row.status, "SUBSCRIPTION_STATUS_", SubscriptionStatus::as_str_name)),
        ("cycle", cycle(row.cycle)),
        ("price", if priced { money(row.price, &row.currency) } else { "free".to_owned() }),
        ("period began", time(row.period_start_time)),
        ("period ends", time(row.period_end_time)),
        ("days left", if ends { row.days_until_renewal.to_string() } else { String::new() }),
        ("then", if row.cancel_at_period_end { "cancelled".to_owned() } else { next }),
        ("paid until", time(row.paid_until_time)),
        ("trial ends", time(row.trial_end_time)),
        ("grace ends", time(row.grace_end_time)),
        ("paused", time(row.pause_time)),
        ("cancelled", time(row.cancel_time)),
        ("customer", ids.customer),
        ("provider's subscription", ids.subscription),
        ("etag", row.etag.clone()),
    ])
}
