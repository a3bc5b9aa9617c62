//! One suite for every engine, races included, and what is special to a file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod domains;
mod file;
mod lives;
mod place;
mod races;
mod workspaces;

macro_rules! store_suite {
    ($engine:ident, $place:expr) => {
        store_suite! { $engine, $place,
            races: one_of_many_creators_of_a_slug_wins,
            races: one_external_id_is_one_environment,
            races: one_of_many_claims_of_an_idempotency_key_is_first,
            races: a_key_is_dead_for_every_reader_once_its_revocation_returned,
            races: an_id_is_spent_once,
            races: each_setting_of_a_secret_counts,
            races: usage_of_many_writers_adds_up,
            races: of_many_first_signing_keys_one_is_current,
            races: of_many_first_keys_of_an_environment_one_is_current,
            races: a_setting_is_made_once,
            races: many_programs_that_open_a_new_database_agree,
            workspaces: of_many_who_want_a_workspace_all_get_the_same,
            workspaces: an_owner_has_no_more_than_it_may_however_many_are_asked_for_at_once,
            workspaces: a_workspace_is_found_used_and_goes_with_its_snapshots,
            workspaces: files_of_a_workspace_are_in_one_place_whoever_notes_it_at_once,
            workspaces: ports_of_a_workspace_are_public_until_they_are_not_and_go_with_it,
            workspaces: ports_of_a_workspace_have_commands_until_they_have_not_and_go_with_it,
            workspaces: an_environment_demands_until_it_does_not,
            lives: a_tenant_is_found_by_id_and_by_slug,
            lives: an_environment_lives_and_takes_its_keys_and_secrets_along,
            lives: environments_are_listed_by_page_tag_and_external_id,
            lives: a_key_reads_back_whole,
            lives: no_key_is_bound_to_another_tenants_environment,
            lives: a_key_is_revoked_by_its_own_tenant_and_environment_only,
            lives: there_is_one_live_operator_key,
            lives: an_idempotency_key_tells_what_became_of_its_call,
            lives: audit_rows_read_back_whole_and_old_ones_go,
            lives: a_database_of_a_later_program_is_refused,
            domains: a_domain_is_claimed_by_many_and_proven_for_one,
            domains: a_proof_that_is_gone_counts_for_a_while,
            domains: a_certificate_is_ordered_by_one_at_a_time,
        }
    };
    ($engine:ident, $place:expr, $($module:ident: $case:ident,)+) => {
        mod $engine {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $case() {
                    crate::$module::$case(&$place).await;
                }
            )+
        }
    };
}

store_suite!(sqlite, crate::place::Place::sqlite());
store_suite!(postgres, crate::place::Place::postgres());
