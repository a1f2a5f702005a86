//! What tenantry's own permissions allow, in words.

/// A sentence about one of tenantry's own permissions; none for a product's.
#[must_use]
pub fn words(permission: &str) -> Option<&'static str> {
    Some(match permission {
        "audit.read" => "Reads the audit log.",
        "billing.manage" => "Changes, cancels and resumes the subscription.",
        "billing.read" => "Sees the subscription and its payments.",
        "data.export" => "Takes everything of the tenant along.",
        "domains.manage" => "Adds, proves and removes domains.",
        "features.manage" => "Switches features within the plan.",
        "features.read" => "Sees which features there are.",
        "keys.manage" => "Creates and revokes keys.",
        "limits.read" => "Sees the limits.",
        "members.invite" => "Adds and invites members.",
        "members.manage" => "Changes, suspends and removes members.",
        "members.read" => "Sees the members.",
        "ownership.transfer" => "Makes somebody else the owner.",
        "roles.manage" => "Makes, changes and deletes roles.",
        "roles.read" => "Sees roles and permissions.",
        "sessions.manage" => "Ends sessions of members.",
        "settings.read" => "Sees the settings.",
        "settings.update" => "Changes the settings.",
        "tenant.delete" => "Deletes the tenant.",
        "tenant.read" => "Sees the tenant.",
        "tenant.suspend" => "Closes and opens the tenant.",
        "tenant.update" => "Changes names of the tenant.",
        "usage.read" => "Sees what is used.",
        "usage.write" => "Uses what is counted.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::domain::role::own_permissions;

    #[test]
    fn every_permission_of_ours_is_said_in_words() {
        for permission in own_permissions() {
            assert!(super::words(permission).is_some(), "{permission} needs a sentence");
        }
    }
}
