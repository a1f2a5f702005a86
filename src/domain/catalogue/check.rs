//! What a catalogue's file must make sense of, beyond being readable.

use super::{Definition, MAX_AMOUNT, MEMBERS, MetricKind, is_name};
use crate::domain::plan::{AfterTrial, Plan};
use crate::domain::role::{is_for_services, is_permission, own_permissions};
use crate::domain::settings::Settings;

/// Something wrong, and where in the file.
pub(super) struct Fault {
    /// The keys that lead there.
    pub(super) path: Vec<String>,
    /// What, and what would be right.
    pub(super) reason: String,
}

impl Fault {
    pub(super) fn at(path: &[&str], reason: impl Into<String>) -> Self {
        Self { path: path.iter().map(|&part| part.to_owned()).collect(), reason: reason.into() }
    }
}

/// What the top role must be allowed, so that a tenant can be run by its own.
const NEEDED: [&str; 4] = ["members.manage", "ownership.transfer", "tenant.delete", "tenant.update"];

/// Notes everything that is wrong with a definition.
pub(super) fn check(d: &Definition, faults: &mut Vec<Fault>) {
    counts(d, faults);
    names(d, faults);
    if !d.plans.contains_key(&d.default_plan) {
        faults.push(Fault::at(&["default_plan"], format!("{:?} is not among [plans]", d.default_plan)));
    }
    for (name, plan) in &d.plans {
        check_plan(d, name, plan, faults);
    }
    for (name, template) in &d.templates {
        if let Some(plan) = template.plan.as_ref().filter(|plan| !d.plans.contains_key(*plan)) {
            faults.push(Fault::at(&["templates", name, "plan"], format!("there is no plan {plan:?}")));
        }
        for feature in template.features.iter().filter(|feature| !d.features.contains_key(*feature)) {
            faults.push(Fault::at(&["templates", name, "features"], format!("there is no feature {feature:?}")));
        }
        check_settings(d, &["templates", name, "settings"], &template.settings, faults);
    }
    check_settings(d, &["settings"], &d.settings, faults);
    for needed in NEEDED {
        if !d.roles.top().permissions.contains(needed) {
            let top = d.roles.top().name.as_str();
            let reason = format!("the highest role must have `{needed}`, or nobody could run a tenant");
            faults.push(Fault::at(&["roles", top, "permissions"], reason));
        }
    }
    let days = &d.notice_days;
    if days.len() > 5 || days.iter().any(|day| !(1..=365).contains(day)) || days.windows(2).any(|d| d[0] <= d[1]) {
        faults.push(Fault::at(&["notice_days"], "must be at most five numbers of 1 to 365, the largest first"));
    }
    for (i, rate) in d.rpc_rates.iter().enumerate() {
        if !(1..=1000).contains(&rate.count) || rate.seconds == 0 {
            let reason = format!("{}: count must be 1 to 1000, seconds at least 1", rate.method);
            faults.push(Fault::at(&["rpc_rates", &i.to_string()], reason));
        }
    }
}

/// Nothing is without bound: all of it is kept in memory by every server.
fn counts(d: &Definition, faults: &mut Vec<Fault>) {
    for (what, count, most) in [
        ("metrics", d.metrics.len(), 200),
        ("features", d.features.len(), 200),
        ("permissions", d.permissions.len(), 200),
        ("roles", d.roles.descending().count(), 50),
        ("plans", d.plans.len(), 100),
        ("templates", d.templates.len(), 50),
        ("rpc_rates", d.rpc_rates.len(), 100),
    ] {
        if count > most {
            faults.push(Fault::at(&[what], format!("there are {count}, {most} are allowed")));
        }
    }
}

fn names(d: &Definition, faults: &mut Vec<Fault>) {
    let named = [
        ("metrics", d.metrics.keys().collect::<Vec<_>>()),
        ("features", d.features.keys().collect()),
        ("plans", d.plans.keys().collect()),
        ("templates", d.templates.keys().collect()),
    ];
    for (kind, names) in named {
        for name in names.into_iter().filter(|name| !is_name(name)) {
            let reason = "names are 1 to 64 of a-z, 0-9 and _, beginning with a letter";
            faults.push(Fault::at(&[kind, name], reason));
        }
    }
    for role in d.roles.descending().filter(|role| !is_name(role.name.as_str())) {
        let reason = "names are 1 to 64 of a-z, 0-9 and _, beginning with a letter";
        faults.push(Fault::at(&["roles", role.name.as_str()], reason));
    }
    if d.metrics.contains_key(MEMBERS) {
        faults.push(Fault::at(&["metrics", MEMBERS], "is built in: it counts members against `seats`"));
    }
    for (name, metric) in &d.metrics {
        if metric.unit.is_empty() || metric.unit.chars().count() > 64 {
            faults.push(Fault::at(&["metrics", name, "unit"], "must be 1 to 64 characters long"));
        }
    }
    for permission in d.permissions.keys() {
        if !is_permission(permission, false) {
            faults.push(Fault::at(&["permissions", permission], "must read noun.verb, in quotation marks"));
        }
        if own_permissions().any(|own| own == permission) || is_for_services(permission) {
            faults.push(Fault::at(&["permissions", permission], "is tenantry's own already"));
        }
    }
}

fn check_plan(d: &Definition, name: &str, plan: &Plan, faults: &mut Vec<Fault>) {
    let mut fault = |key: &str, reason: String| faults.push(Fault::at(&["plans", name, key], reason));
    let currency = plan.currency.len() == 3 && plan.currency.bytes().all(|b| b.is_ascii_uppercase());
    if !plan.currency.is_empty() && !currency {
        fault("currency", "must be three capital letters, as in ISO 4217".to_owned());
    }
    let prices = [plan.price.month, plan.price.year].into_iter().flatten();
    if prices.clone().any(|price| price > 0) && plan.currency.is_empty() {
        fault("price", "needs a `currency`".to_owned());
    }
    if prices.clone().any(|price| !(0..=MAX_AMOUNT).contains(&price)) {
        fault("price", "must be 0 to 2^53 minor units".to_owned());
    }
    if plan.grace_days > 365 {
        fault("grace_days", "must be at most 365".to_owned());
    }
    if plan.seats.is_some_and(|seats| !(1..=MAX_AMOUNT).contains(&seats)) {
        fault("seats", "must be at least 1; without it there is no limit".to_owned());
    }
    if plan.display_name.chars().count() > 200 || plan.description.chars().count() > 500 {
        fault("description", "is too long: 500 characters are allowed, and 200 for the name".to_owned());
    }
    for feature in plan.features.iter().filter(|feature| !d.features.contains_key(*feature)) {
        fault("features", format!("there is no feature {feature:?}; [features] names those that there are"));
    }
    if let Some(trial) = &plan.trial {
        if !(1..=365).contains(&trial.days) {
            fault("trial", "must be 1 to 365 days long".to_owned());
        }
        if let AfterTrial::Downgrade { downgrade } = &trial.then {
            match d.plans.get(downgrade) {
                None => fault("trial", format!("ends into a plan that there is not: {downgrade:?}")),
                Some(_) if downgrade == name => fault("trial", "cannot end into the same plan".to_owned()),
                Some(_) => {}
            }
        }
    }
    for (metric, limit) in &plan.limits {
        let path = ["plans", name, "limits", metric];
        let Some(known) = d.metrics.get(metric) else {
            faults.push(Fault::at(&path, "there is no such metric; [metrics] names those that there are"));
            continue;
        };
        let rate = known.kind == MetricKind::Rate;
        let overage = limit.overage.is_none_or(|o| (0..=MAX_AMOUNT).contains(&o.amount) && o.per >= 1);
        if !(0..=MAX_AMOUNT).contains(&limit.limit) {
            faults.push(Fault::at(&path, "must be 0 to 2^53"));
        }
        if limit.soft_percent > 1000 {
            faults.push(Fault::at(&path, "soft_percent must be at most 1000"));
        }
        if (limit.burst != 0 && !rate) || !(0..=MAX_AMOUNT).contains(&limit.burst) {
            faults.push(Fault::at(&path, "burst is for rates, and not negative"));
        }
        if !overage || (limit.overage.is_some() && plan.currency.is_empty()) {
            faults.push(Fault::at(&path, "overage needs the plan's currency, an amount and how many units it buys"));
        }
    }
}

fn check_settings(d: &Definition, path: &[&str], settings: &Settings, faults: &mut Vec<Fault>) {
    let mut problems: Vec<(String, String)> =
        settings.problems().into_iter().map(|(at, why)| (at, String::from(why))).collect();
    problems.extend(settings.role_problem(&d.roles).map(|why| ("auto_join.role".to_owned(), why)));
    for (at, why) in problems {
        let parts: Vec<&str> = path.iter().copied().chain(at.split('.')).collect();
        faults.push(Fault::at(&parts, why));
    }
}
