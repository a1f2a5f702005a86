//! What a catalogue must be to make sense: bounded, and everything that it refers to is there. All that is wrong is found,
//! each with its line and what would be right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::File;
use super::text::{Text, keys, problem, shown};
use super::{Definition, MAX_AMOUNT, MEMBERS, Metric, MetricKind, Problem, RpcRate, Template, is_name};
use crate::domain::plan::{AfterTrial, Limit, Plan};
use crate::domain::role::{Roles, is_for_services, is_permission, own_permissions};
use crate::domain::settings::Settings;

/// The most of each kind.
const MOST: [(&str, usize); 6] =
    [("metrics", 200), ("features", 200), ("permissions", 200), ("plans", 100), ("templates", 50), ("rpc_rates", 100)];

/// The longest window of a rate: 31 days.
const MOST_SECONDS: u32 = 31 * 24 * 60 * 60;

/// The names that stand in the file, also of what could not be read: so that one problem does not make others.
pub(super) struct Names {
    metrics: BTreeSet<String>,
    features: BTreeSet<String>,
    pub(super) roles: BTreeSet<String>,
    plans: BTreeSet<String>,
}

impl Names {
    #[expect(clippy::unused_self, reason = "reads as a question to the names")]
    pub(super) fn has(&self, names: &BTreeSet<String>, name: &str) -> bool {
        names.contains(name)
    }
}

/// A file that is being checked.
pub(super) struct Check<'t> {
    text: &'t Text<'t>,
    pub(super) names: Names,
    pub(super) problems: Vec<Problem>,
}

impl<'t> Check<'t> {
    /// Begins with what is wrong already.
    pub(super) fn new(text: &'t Text<'t>, problems: Vec<Problem>) -> Self {
        let names = |table| text.keys(table).into_iter().map(ToOwned::to_owned).collect();
        let names = Names {
            metrics: names("metrics"),
            features: names("features"),
            roles: names("roles"),
            plans: names("plans"),
        };
        Self { text, names, problems }
    }

    /// Notes a problem.
    pub(super) fn says(&mut self, path: &[String], reason: impl AsRef<str>) {
        self.problems.push(problem(self.text.line_of(path), &shown(path), reason.as_ref()));
    }

    /// Notes that there are too many.
    pub(super) fn count(&mut self, table: &str, count: usize, most: usize) {
        if count > most {
            self.says(&keys![table], format!("has {count} entries, {most} are the most"));
        }
    }

    /// Notes a bad name.
    pub(super) fn name(&mut self, path: &[String]) {
        self.says(path, "names are 1 to 64 of a-z, 0-9 and _, beginning with a letter");
    }

    fn amount(&mut self, path: &[String], amount: i64, least: i64) {
        if !(least..=MAX_AMOUNT).contains(&amount) {
            self.says(path, format!("must be {least} to 2^53"));
        }
    }

    fn words(&mut self, path: &[String], text: &str, most: usize) {
        if text.chars().count() > most || text.chars().any(char::is_control) {
            self.says(path, format!("must be at most {most} characters on one line"));
        }
    }

    /// Checks everything; what the file says, as far as it can be told.
    pub(super) fn definition(&mut self, file: File, methods: Option<&[&str]>) -> Option<Definition> {
        let counts = [
            file.metrics.len(),
            file.features.len(),
            file.permissions.len(),
            file.plans.len(),
            file.templates.len(),
            file.rpc_rates.len(),
        ];
        for ((table, most), count) in MOST.into_iter().zip(counts) {
            self.count(table, count, most);
        }
        if !self.names.plans.contains(&file.default_plan) {
            self.says(&keys!["default_plan"], format!("there is no plan {:?} in [plans]", file.default_plan));
        }
        file.metrics.iter().for_each(|(name, metric)| self.metric(name, metric));
        for (name, description) in &file.features {
            if !is_name(name) {
                self.name(&keys!["features", name]);
            }
            self.words(&keys!["features", name], description, 500);
        }
        file.permissions.iter().for_each(|(name, description)| self.permission(name, description));
        let product: Vec<String> = file.permissions.keys().cloned().collect();
        let roles = self.roles(&file.roles, &product);
        for (name, plan) in &file.plans {
            self.plan(name, plan);
            for (metric, limit) in &plan.limits {
                self.limit((name, plan), (metric, limit), file.metrics.get(metric));
            }
        }
        let plans = self.spell_out_features(&file.plans);
        self.settings(&["settings"], &file.settings, roles.as_ref());
        file.templates.iter().for_each(|(name, template)| self.template(name, template, roles.as_ref()));
        self.notice_days(&file.notice_days);
        self.rates(&file.rpc_rates, methods);
        Some(Definition {
            default_plan: file.default_plan,
            metrics: file.metrics,
            features: file.features,
            permissions: file.permissions,
            roles: Arc::new(roles?),
            plans,
            templates: file.templates,
            settings: file.settings,
            notice_days: file.notice_days,
            rpc_rates: file.rpc_rates,
        })
    }

    fn metric(&mut self, name: &str, metric: &Metric) {
        let at = keys!["metrics", name];
        if name == MEMBERS {
            self.says(&at, "is built in: members count against a plan's `seats`; choose another name");
        } else if !is_name(name) {
            self.name(&at);
        }
        if metric.unit.is_empty() {
            self.says(&keys!["metrics", name, "unit"], "must say what is counted, such as \"calls\"");
        }
        self.words(&keys!["metrics", name, "unit"], &metric.unit, 64);
        self.words(&keys!["metrics", name, "description"], &metric.description, 500);
    }

    fn permission(&mut self, name: &str, description: &str) {
        let at = keys!["permissions", name];
        if !is_permission(name, false) {
            self.says(&at, "must read noun.verb, of a-z, 0-9 and _, at most 64 characters");
        }
        if is_for_services(name) || own_permissions().any(|own| own == name) {
            self.says(&at, "is one of tenantry's own, which need not be named; choose another name");
        }
        self.words(&at, description, 500);
    }

    fn plan(&mut self, name: &str, plan: &Plan) {
        let at = |key: &str| keys!["plans", name, key];
        if !is_name(name) {
            self.name(&keys!["plans", name]);
        }
        self.words(&at("display_name"), &plan.display_name, 200);
        self.words(&at("description"), &plan.description, 500);
        if !plan.currency.is_empty() && !is_currency(&plan.currency) {
            self.says(&at("currency"), "must be three capital letters of ISO 4217, such as \"EUR\"");
        }
        for (cycle, price) in [("month", plan.price.month), ("year", plan.price.year)] {
            if let Some(price) = price {
                self.amount(&keys!["plans", name, "price", cycle], price, 0);
            }
        }
        if plan.currency.is_empty() && plan.shortest_cycle().is_some() {
            self.says(&at("price"), "needs a `currency`, such as \"EUR\"");
        }
        if plan.grace_days > 365 {
            self.says(&at("grace_days"), "must be 0 to 365");
        }
        if plan.usage_retention_days.is_some_and(|days| !(1..=3660).contains(&days)) {
            self.says(&at("usage_retention_days"), "must be 1 to 3660");
        }
        if let Some(seats) = plan.seats {
            self.amount(&at("seats"), seats, 1);
        }
        self.features(&at("features"), &plan.features);
        self.trial(name, plan);
    }

    fn features(&mut self, at: &[String], features: &[String]) {
        for (i, feature) in features.iter().enumerate() {
            if !self.names.features.contains(feature) {
                let at = at.iter().cloned().chain([format!("[{i}]")]).collect::<Vec<_>>();
                self.says(&at, format!("there is no feature {feature:?} in [features]"));
            }
        }
    }

    fn trial(&mut self, name: &str, plan: &Plan) {
        let Some(trial) = &plan.trial else { return };
        if !(1..=365).contains(&trial.days) {
            self.says(&keys!["plans", name, "trial", "days"], "must be 1 to 365");
        }
        let AfterTrial::Downgrade { downgrade } = &trial.then else { return };
        let at = keys!["plans", name, "trial", "then"];
        if !self.names.plans.contains(downgrade) {
            self.says(&at, format!("there is no plan {downgrade:?} in [plans]"));
        } else if downgrade == name {
            // Another plan may have a trial of its own: that is for those who begin on it.
            self.says(&at, "must be another plan");
        }
    }

    fn limit(&mut self, (name, plan): (&str, &Plan), (metric, limit): (&str, &Limit), of: Option<&Metric>) {
        let at = keys!["plans", name, "limits", metric];
        let below = |key: &str| keys!["plans", name, "limits", metric, key];
        if metric == MEMBERS {
            return self.says(&at, format!("members are bounded by `seats` in [plans.{name}]"));
        }
        if !self.names.metrics.contains(metric) {
            return self.says(&at, format!("there is no metric {metric:?} in [metrics]"));
        }
        self.amount(&at, limit.limit, 0);
        if limit.soft_percent > 1000 {
            self.says(&below("soft_percent"), "must be 0 to 1000");
        }
        for (name, own) in [("per_member", limit.per_member), ("per_key", limit.per_key)] {
            if let Some(own) = own {
                self.amount(&below(name), own, 0);
            }
        }
        if limit.burst != 0 {
            self.amount(&below("burst"), limit.burst, 0);
            if of.is_some_and(|of| of.kind != MetricKind::Rate) {
                self.says(&below("burst"), "is for metrics of kind \"rate\"");
            }
        }
        if let Some(overage) = limit.overage {
            self.amount(&below("overage"), overage.amount, 0);
            self.amount(&below("overage"), overage.per, 1);
            if plan.currency.is_empty() {
                self.says(&below("overage"), format!("needs a `currency` in [plans.{name}], such as \"EUR\""));
            }
        }
    }

    /// Adds to each plan the features of the plans that it includes.
    fn spell_out_features(&mut self, before: &BTreeMap<String, Plan>) -> BTreeMap<String, Plan> {
        let mut plans = before.clone();
        for (name, plan) in &mut plans {
            let mut features: BTreeSet<String> = plan.features.iter().cloned().collect();
            let mut seen = BTreeSet::from([name.as_str()]);
            let mut next = plan.includes.take().and_then(|other| self.included(name, &other, before));
            while let Some((other, included)) = next {
                if !seen.insert(other) {
                    self.says(&keys!["plans", name, "includes"], "goes round in a circle");
                    break;
                }
                features.extend(included.features.iter().cloned());
                next = included
                    .includes
                    .as_ref()
                    .and_then(|other| before.get_key_value(other))
                    .map(|(n, p)| (n.as_str(), p));
            }
            plan.features = features.into_iter().collect();
        }
        plans
    }

    fn included<'p>(
        &mut self,
        name: &str,
        other: &str,
        plans: &'p BTreeMap<String, Plan>,
    ) -> Option<(&'p str, &'p Plan)> {
        if !self.names.plans.contains(other) {
            self.says(&keys!["plans", name, "includes"], format!("there is no plan {other:?} in [plans]"));
        }
        plans.get_key_value(other).map(|(name, plan)| (name.as_str(), plan))
    }

    fn template(&mut self, name: &str, template: &Template, roles: Option<&Roles>) {
        if !is_name(name) {
            self.name(&keys!["templates", name]);
        }
        if let Some(plan) = template.plan.as_ref().filter(|plan| !self.names.plans.contains(*plan)) {
            self.says(&keys!["templates", name, "plan"], format!("there is no plan {plan:?} in [plans]"));
        }
        self.features(&keys!["templates", name, "features"], &template.features);
        self.settings(&["templates", name, "settings"], &template.settings, roles);
    }

    fn settings(&mut self, at: &[&str], settings: &Settings, roles: Option<&Roles>) {
        let below = |path: &str| {
            let keys = path
                .split(['.', '['])
                .map(|key| key.strip_suffix(']').map_or_else(|| key.to_owned(), |index| format!("[{index}]")));
            at.iter().map(|&key| key.to_owned()).chain(keys).collect::<Vec<_>>()
        };
        for (path, reason) in settings.problems() {
            self.says(&below(&path), String::from(reason));
        }
        if let Some(reason) = roles.and_then(|roles| settings.role_problem(roles)) {
            self.says(&below("auto_join.role"), reason);
        }
    }

    fn notice_days(&mut self, days: &[u16]) {
        let at = keys!["notice_days"];
        if days.len() > 5 || days.iter().any(|day| !(1..=365).contains(day)) {
            self.says(&at, "must be at most 5 numbers of days, each 1 to 365");
        } else if days.windows(2).any(|pair| pair[0] <= pair[1]) {
            self.says(&at, "must begin with the most days and go down, such as [7, 1]");
        }
    }

    fn rates(&mut self, rates: &[RpcRate], methods: Option<&[&str]>) {
        for (i, rate) in rates.iter().enumerate() {
            let at = |key: &str| keys!["rpc_rates", format!("[{i}]"), key];
            if methods.is_some_and(|methods| !methods.contains(&rate.method.as_str())) {
                let reason = format!("there is no method {:?}; write it like \"AuthService/Login\"", rate.method);
                self.says(&at("method"), reason);
            }
            if !(1..=1000).contains(&rate.count) {
                self.says(&at("count"), "must be 1 to 1000");
            }
            if !(1..=MOST_SECONDS).contains(&rate.seconds) {
                self.says(&at("seconds"), "must be 1 to 2678400, which is 31 days");
            }
            // The calls of one subject are counted once, whatever the number of rates.
            if rates.iter().take(i).any(|other| other.method == rate.method && other.per == rate.per) {
                self.says(&at("per"), "stands in an earlier rate of this method; each once");
            }
        }
    }
}

fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}
