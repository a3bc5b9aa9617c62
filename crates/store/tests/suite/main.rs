//! One suite for every engine, races included, and what is special to a file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod budgets;
mod data_keys;
mod domains;
mod file;
mod listeners;
mod lives;
mod members;
mod metered;
mod oauth;
mod place;
mod plans;
mod races;
mod runs;
mod schedules;
mod workspaces;

macro_rules! store_suite {
    ($engine:ident, $place:expr) => {
        store_suite! { $engine, $place,
            audit: a_chain_is_whole_however_many_write,
            audit: a_chain_that_somebody_has_changed_says_so_and_goes_on,
            audit: old_entries_go_and_what_is_left_says_where_it_starts,
            audit: nothing_is_signed_away_that_was_not_written,
            audit: a_chain_that_cannot_be_read_gets_no_checkpoint_and_keeps_no_other_from_it,
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
            lives: a_tenant_is_removed_only_while_its_time_is_over_and_then_not_restored,
            lives: an_environment_lives_and_takes_its_keys_and_secrets_along,
            lives: environments_are_listed_by_page_tag_and_external_id,
            lives: a_key_reads_back_whole,
            lives: no_key_is_bound_to_another_tenants_environment,
            lives: a_key_is_revoked_by_its_own_tenant_and_environment_only,
            lives: there_is_one_live_operator_key,
            lives: an_idempotency_key_tells_what_became_of_its_call,
            lives: audit_rows_read_back_whole_and_old_ones_go,
            lives: a_database_of_a_later_program_is_refused,
            members: an_invitation_is_taken_up_once_and_in_time,
            members: members_are_one_for_each_address_and_as_many_as_may_be,
            members: the_last_owner_stays_one,
            members: what_stands_on_a_member_ends_with_each_change,
            domains: a_domain_is_claimed_by_many_and_proven_for_one,
            domains: a_proof_that_is_gone_counts_for_a_while,
            domains: a_certificate_is_ordered_by_one_at_a_time,
            data_keys: of_many_first_data_keys_of_a_tenant_one_seals,
            data_keys: one_of_many_puts_another_key_encryption_key_in_force,
            data_keys: no_data_key_slips_past_a_rewrap,
            data_keys: a_key_that_has_sealed_something_stays_and_a_tenants_go_with_it,
            runs: a_minted_credential_reads_back_whole_and_ends_with_all_that_stand_on_it,
            runs: a_tenant_has_no_more_credentials_than_it_may_however_many_are_minted_at_once,
            runs: what_was_revoked_makes_room_at_once_and_is_told_once,
            runs: what_stands_on_one_credential_does_not_take_all_that_its_tenant_has,
            runs: one_of_many_takes_a_keys_place,
            runs: a_signing_key_is_followed_by_one_other,
            oauth: a_code_is_used_by_one_of_many_and_a_second_use_is_noted,
            oauth: a_family_goes_on_by_one_of_many_and_goes_with_its_credential,
            oauth: a_device_is_answered_once_and_used_once_and_no_more_wait_than_may,
            listeners: who_cannot_have_the_turn_writes_nothing_to_learn_so,
            schedules: a_time_is_run_by_one_of_many_who_see_it,
            schedules: a_run_that_is_not_over_holds_up_the_next_where_that_is_wanted,
            schedules: what_somebody_died_over_is_taken_by_one_other,
            schedules: schedules_are_those_of_the_release_and_go_with_the_environment,
            metered: what_is_written_again_is_counted_once_and_what_many_write_adds_up,
            metered: hours_are_listed_page_by_page_with_the_calls_of_their_tenant_alone,
            metered: a_meters_price_counts_from_its_hour_on,
            plans: a_tenant_has_no_more_environments_than_it_may_however_many_are_made_at_once,
            plans: a_plan_is_had_or_removed_and_never_both,
            plans: who_has_which_plan_is_told_and_read_back,
            budgets: of_many_at_once_no_more_is_set_aside_than_there_is,
            budgets: a_request_is_counted_once_whoever_ends_it,
            budgets: what_was_not_set_aside_is_charged_to_nobody,
            budgets: what_nobody_speaks_for_is_found_when_its_time_is_over,
            budgets: a_budget_of_money_wants_a_price,
            budgets: all_that_bounds_an_environment_has_to_have_room,
            budgets: a_request_counts_in_the_day_and_month_in_which_it_was_made,
            budgets: what_is_nearly_spent_is_said_once_in_a_period,
            budgets: a_budget_that_is_set_bounds_all_that_is_not_set_aside_by_then,
            budgets: what_an_environment_has_used_outlives_it,
            budgets: a_budget_is_set_listed_and_removed_by_its_tenant_alone,
            budgets: a_price_counts_from_its_day_on,
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
