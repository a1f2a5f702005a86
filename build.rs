//! Compiles the protos with protox (no protoc to install) and writes three things next to the generated code: the
//! descriptor set for reflection and JSON transcoders, the access table that the gate enforces, and, for every
//! request of a tenant, its field `tenant` by a common name. Fails when a method has no access rule or one that
//! contradicts itself.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MethodDescriptor, ReflectMessage as _, Value};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut files: Vec<PathBuf> =
        fs::read_dir("proto/tenantry/v1")?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let bytes = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptor.bin"), &bytes)?;

    let pool = DescriptorPool::decode(bytes.as_slice())?;
    fs::write(out.join("access.rs"), access_table(&pool)?)?;
    fs::write(out.join("tenant_named.rs"), tenant_named(&pool))?;

    tonic_prost_build::configure().compile_fds(prost_types::FileDescriptorSet::decode(bytes.as_slice())?)?;
    Ok(())
}

/// The services of ours, method by method.
fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let ours = |s: &prost_reflect::ServiceDescriptor| s.full_name().starts_with("tenantry.");
    pool.services().filter(ours).flat_map(|s| s.methods().collect::<Vec<_>>()).collect()
}

/// A Rust array of `Access`, one a method.
fn access_table(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let extension = pool
        .get_extension_by_name("tenantry.v1.access")
        .ok_or("proto/tenantry/v1/access.proto no longer declares the extension `access`")?;
    let mut table = String::from("&[\n");
    for method in methods(pool) {
        let name = method.full_name();
        let options = method.options();
        if !options.has_extension(&extension) {
            return Err(format!("{name} has no option (tenantry.v1.access): say who may call it").into());
        }
        let value = options.get_extension(&extension).into_owned();
        let access = value.as_message().ok_or("the option (tenantry.v1.access) is not a message")?;
        let rule = rule(access).map_err(|problem| format!("{name}: {problem}"))?;
        let repeatable = method.input().get_field_by_name("request_id").is_some();
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let takes_stream = method.is_client_streaming();
        let tells_revision = method.output().get_field_by_name("revision").is_some();
        writeln!(
            table,
            "    Access {{ path: {path:?}, repeatable: {repeatable}, takes_stream: {takes_stream}, \
             tells_revision: {tells_revision}, {rule} }},"
        )?;
    }
    table.push_str("]\n");
    Ok(table)
}

/// The fields of one `Access`, after a check that they make sense together.
fn rule(access: &DynamicMessage) -> Result<String, String> {
    let flag = |name: &str| access.get_field_by_name(name).and_then(|v| v.as_bool()).unwrap_or(false);
    let text =
        |name: &str| access.get_field_by_name(name).and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    let permission = text("permission");
    let service = text("service");
    let who = match (flag("public"), flag("signed_in"), flag("operator"), permission.as_str(), service.as_str()) {
        (true, false, false, "", "") => "Who::Public".to_owned(),
        (false, true, false, "", "") => "Who::SignedIn".to_owned(),
        (false, false, true, "", "") => "Who::Operator".to_owned(),
        (false, false, false, held, "") if is_permission(held) => format!("Who::Permission({held:?})"),
        (false, false, false, "", held) if is_permission(held) => format!("Who::Service({held:?})"),
        _ => {
            let kinds = "public, signed_in, permission (noun.verb), service (noun.verb), operator";
            return Err(format!("`who` must be one of {kinds}"));
        }
    };
    let tenant = match enum_name(access, "tenant").as_str() {
        "TENANT_RULE_NONE" => "TenantRule::None",
        "TENANT_RULE_OPTIONAL" => "TenantRule::Optional",
        "TENANT_RULE_REQUIRED" => "TenantRule::Required",
        _ => return Err("`tenant` must be said".into()),
    };
    let writes =
        access.has_field_by_name("writes").then(|| flag("writes")).ok_or("`writes` must be said, true or false")?;
    let allow = |status: &str| enum_names(access, "allow").iter().any(|name| name == status);
    let also = |kind: &str| enum_names(access, "also").iter().any(|name| name == kind);
    let recent_login = flag("recent_login");
    if who == "Who::Public" && recent_login {
        return Err("a public method cannot ask for a recent sign-in".into());
    }
    if also("CALLER_KIND_USER") && (who != "Who::Public" || tenant != "TenantRule::None") {
        return Err(
            "`also: CALLER_KIND_USER` is for public methods without a tenant, which look at who is signed in".into()
        );
    }
    let of_members = who.starts_with("Who::Permission");
    if of_members && (tenant == "TenantRule::None" || (tenant == "TenantRule::Optional" && flag("writes"))) {
        let problem = "a permission is held in a tenant: `permission` needs TENANT_RULE_REQUIRED, or, for what services and \
                       operators may read of all tenants, TENANT_RULE_OPTIONAL";
        return Err(problem.into());
    }
    if tenant == "TenantRule::Required" && matches!(who.as_str(), "Who::Public" | "Who::SignedIn") {
        return Err("whoever acts in a tenant needs a permission there: say `permission`".into());
    }
    // Behind a key nobody has signed in: what wants a recent sign-in is not for keys.
    let deny_api_key = flag("deny_api_key") || (of_members && recent_login);
    if deny_api_key && !of_members {
        return Err("API keys call what asks for a `permission`: `deny_api_key` goes with it".into());
    }
    let support = flag("support");
    if support && !(who == "Who::Operator" && writes) {
        return Err("`support` is for methods of operators that write".into());
    }
    let allow_mfa_missing = flag("allow_mfa_missing");
    if allow_mfa_missing && tenant == "TenantRule::None" {
        return Err("no tenant asks for a second step there: `allow_mfa_missing` is for methods with a tenant".into());
    }
    let allow_maintenance = flag("allow_maintenance");
    if allow_maintenance && !writes {
        return Err("reads go on in maintenance: `allow_maintenance` is for methods that write".into());
    }
    let (deny_impersonated, allow_bound) = (flag("deny_impersonated"), flag("allow_bound"));
    if allow_bound && (tenant != "TenantRule::None" || who != "Who::SignedIn") {
        return Err("`allow_bound` is for methods of the signed-in without a tenant".into());
    }
    Ok(format!(
        "who: {who}, also_user: {}, also_service: {}, also_operator: {}, also_api_key: {}, also_personal_key: {}, \
         tenant: {tenant}, writes: {writes}, deny_api_key: {deny_api_key}, support: {support}, \
         allow_suspended: {}, allow_cancelled: {}, allow_pending: {}, allow_deleted: {}, \
         allow_maintenance: {allow_maintenance}, allow_mfa_missing: {allow_mfa_missing}, recent_login: {recent_login}, \
         deny_impersonated: {deny_impersonated}, allow_bound: {allow_bound}",
        also("CALLER_KIND_USER"),
        also("CALLER_KIND_SERVICE"),
        also("CALLER_KIND_OPERATOR"),
        also("CALLER_KIND_API_KEY"),
        also("CALLER_KIND_PERSONAL_KEY"),
        allow("TENANT_STATUS_SUSPENDED"),
        allow("TENANT_STATUS_CANCELLED"),
        allow("TENANT_STATUS_PENDING"),
        allow("TENANT_STATUS_DELETED"),
    ))
}

/// Whether the text reads `noun.verb`.
fn is_permission(text: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.split_once('.').is_some_and(|(noun, verb)| word(noun) && word(verb))
}

/// The name of an enum field's value.
fn enum_name(access: &DynamicMessage, field: &str) -> String {
    enum_names(access, field).pop().unwrap_or_default()
}

/// The names of an enum field's values, single or repeated.
fn enum_names(access: &DynamicMessage, field: &str) -> Vec<String> {
    let Some(descriptor) = access.descriptor().get_field_by_name(field) else { return Vec::new() };
    let Kind::Enum(kind) = descriptor.kind() else { return Vec::new() };
    let value = access.get_field(&descriptor).into_owned();
    let numbers = match value {
        Value::List(items) => items.iter().filter_map(Value::as_enum_number).collect(),
        single => single.as_enum_number().into_iter().collect::<Vec<_>>(),
    };
    numbers.into_iter().filter_map(|n| kind.get_value(n)).map(|v| v.name().to_owned()).collect()
}

/// `impl TenantNamed` for the request of every method that needs a tenant.
fn tenant_named(pool: &DescriptorPool) -> String {
    let mut code = String::new();
    for method in methods(pool) {
        let input = method.input();
        if input.get_field_by_name("tenant").is_some_and(|f| f.number() == 1 && f.kind() == Kind::String) {
            let name = input.name();
            let _ = writeln!(code, "impl TenantNamed for v1::{name} {{ fn tenant(&self) -> &str {{ &self.tenant }} }}");
        }
    }
    code
}
