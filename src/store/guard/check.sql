-- Run as the role that the server connects as, under search_path = pg_catalog. Every row is a reason not to start:
-- what kind, what exactly, and the statement that mends it. $1: digests of the policies that `tenantry migrate` recorded.
select 'role can bypass' as kind,
       case when r.rolname = current_user then format('%I has an attribute that goes past row level security', current_user)
            else format('%I is a member of %I', current_user, r.rolname) end as message,
       case when r.rolname = current_user
            then format('alter role %I nosuperuser nobypassrls nocreaterole noreplication', current_user)
            else format('revoke %I from %I', r.rolname, current_user) end as mend
from pg_roles r
where pg_has_role(current_user, r.oid, 'member')
  and (r.rolname = current_user or not (select rolsuper from pg_roles where rolname = current_user))
  and (r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolreplication
       or r.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
union all
select 'session_user is not current_user', format('%I acts as %I', session_user, current_user), 'reset role'
where session_user <> current_user
union all
select 'owns',
       format('%I owns, or is a member of %I, which owns %s', current_user, o.rolname, string_agg(c.oid::regclass::text, ', ' order by c.oid)),
       case when o.rolname = current_user then format('reassign owned by %I to tenantry_owner', current_user)
            else format('revoke %I from %I', o.rolname, current_user) end
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_roles o on o.oid = c.relowner
where n.nspname = 'tenantry' and c.relkind <> 'i' and pg_has_role(current_user, c.relowner, 'member')
  and (o.rolname = current_user or not (select rolsuper from pg_roles where rolname = current_user))
group by o.rolname
union all
select 'no forced row level security', c.oid::regclass::text,
       format('alter table %s enable row level security, force row level security', c.oid::regclass)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relkind in ('r', 'p')
  and not (c.relrowsecurity and c.relforcerowsecurity)
  and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname in ('tenant_id', 'user_id') and not a.attisdropped)
union all
select 'policy reaches me and is not in the list', format('%s.%I', p.polrelid::regclass, p.polname),
       case when by_role.name = current_user then format('drop policy %I on %s', p.polname, p.polrelid::regclass)
            else format('revoke %I from %I', by_role.name, current_user) end
from pg_policy p
join pg_class c on c.oid = p.polrelid
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select case r.oid when 0 then current_user else pg_get_userbyid(r.oid) end as name
  from unnest(p.polroles) r(oid)
  where r.oid = 0 or pg_has_role(current_user, r.oid, 'member')
  order by r.oid = 0 or pg_get_userbyid(r.oid) = current_user desc
  limit 1) by_role
where n.nspname = 'tenantry'
  and md5(row(c.relname, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text)
      <> all ($1)
union all
select 'policies are gone', format('%s of the policies that were recorded for %I', count(*), current_user),
       '-- create them again as migrations/postgres writes them'
from unnest($1) as e(digest)
where not exists (
  select 1
  from pg_policy p
  join pg_class c on c.oid = p.polrelid
  join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'tenantry'
    and exists (select 1 from unnest(p.polroles) r(oid) where r.oid = 0 or pg_has_role(current_user, r.oid, 'member'))
    and md5(row(c.relname, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text)
        = e.digest)
having count(*) > 0
union all
select 'no policy', c.oid::regclass::text, format('-- create the policy of %s as migrations/postgres writes it', c.oid::regclass)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relkind in ('r', 'p') and c.relrowsecurity
  and not exists (select 1 from pg_policy p where p.polrelid = c.oid)
union all
select 'unfiltered relation granted', c.oid::regclass::text,
       format('revoke all on %s from public, %I', c.oid::regclass, current_user)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relkind in ('v', 'm', 'f')
  and has_any_column_privilege(current_user, c.oid, 'select, insert, update')
  and not (c.relkind = 'v' and exists (select 1 from pg_options_to_table(c.reloptions) o where o.option_name = 'security_invoker' and o.option_value in ('true', 'on', '1', 'yes')))
union all
select 'privilege that steps round policies', c.oid::regclass::text,
       format('revoke truncate, references, trigger on %s from public, %I', c.oid::regclass, current_user)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relkind in ('r', 'p')
  and has_table_privilege(current_user, c.oid, 'truncate, references, trigger')
union all
select 'privilege beyond the commit lanes', c.oid::regclass::text,
       format('revoke all on %s from public, %I', c.oid::regclass, current_user)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where current_user = 'tenantry_meter' and n.nspname = 'tenantry' and c.relkind in ('r', 'p', 'v', 'm', 'f')
  and c.relname not in ('quota_account', 'quota_lease', 'quota_writer', 'quota_hold', 'quota_notice', 'usage_event', 'usage_horizon', 'usage_rollup', 'job', 'expected_policy')
  and (has_table_privilege(current_user, c.oid, 'select, insert, update, delete, truncate, references, trigger')
       or has_any_column_privilege(current_user, c.oid, 'select, insert, update, references'))
union all
select 'partition granted directly', c.oid::regclass::text,
       format('revoke all on %s from public, %I', c.oid::regclass, current_user)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relispartition and c.relkind in ('r', 'p')
  and has_any_column_privilege(current_user, c.oid, 'select, insert, update')
union all
select 'may write the list of policies', c.oid::regclass::text,
       format('revoke insert, update, delete on %s from public, %I', c.oid::regclass, current_user)
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'tenantry' and c.relname = 'expected_policy'
  and (has_table_privilege(current_user, c.oid, 'insert, update, delete')
       or has_any_column_privilege(current_user, c.oid, 'insert, update'))
union all
select 'security definer', p.oid::regprocedure::text,
       format('alter routine %s security invoker', p.oid::regprocedure)
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname not in ('pg_catalog', 'information_schema')
  and has_function_privilege(current_user, p.oid, 'execute')
union all
select 'may create in schema', n.nspname::text, format('revoke create on schema %I from public, %I', n.nspname, current_user)
from pg_namespace n
where n.nspname not like 'pg\_temp\_%' and n.nspname not like 'pg\_toast%' and has_schema_privilege(current_user, n.oid, 'create')
union all
select 'setting', format('%s = %s', name, setting),
       case source
         when 'database user' then format('alter role %I in database %I reset %I', current_user, current_database(), name)
         when 'user' then format('alter role %I reset %I', current_user, name)
         when 'database' then format('alter database %I reset %I', current_database(), name)
         when 'client' then format('-- take %s out of the connection''s options', name)
         else format('alter system reset %I', name) end
from pg_settings
where (name, setting) in (('fsync', 'off'), ('full_page_writes', 'off'), ('synchronous_commit', 'off'), ('synchronous_commit', 'local'), ('row_security', 'off'))
union all
select 'this server is a standby', 'nothing can be written here', '-- connect to the primary'
where pg_is_in_recovery()
order by kind, message
