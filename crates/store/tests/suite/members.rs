//! People of tenants, on both engines.

use kernel::{KeyId, MemberId, Role, Secret, TenantId, Timestamp};
use store::{
    Joining, Key, KeyKind, Member, MemberKey, Renewal, Renewed, Store, Tenant, TenantState, Vouched,
};

use crate::place::Place;

fn acts_by(tenant: TenantId, byte: u8) -> MemberKey {
    let id = KeyId::new();
    let key = Key {
        id,
        tenant,
        env: None,
        kind: KeyKind::Member,
        name: "Ada".to_owned(),
        scopes: Role::Developer.scopes(),
        created: Timestamp::now(),
        expires: None,
        revoked: None,
        last_used: None,
        cidrs: None,
        rotated_to: None,
        lineage: id,
        suspended: false,
    };
    MemberKey { key, hash: [byte; 32] }
}

fn invited(tenant: TenantId, key: &MemberKey, email: &str, role: Role) -> Member {
    let now = Timestamp::from_micros(1_000_000);
    Member {
        id: MemberId::new(),
        tenant,
        key: key.key.id,
        name: "Ada".to_owned(),
        email: Some(email.to_owned()),
        role,
        vouched: None,
        invited_until: Some(now.plus(std::time::Duration::from_secs(1 << 40))),
        created: now,
        joined: None,
        last_used: None,
    }
}

async fn tenant(store: &Store, slug: &str) -> TenantId {
    let row = Tenant::new(slug.parse().unwrap(), String::new(), TenantId::new(), Timestamp::now());
    assert!(store.tenants().insert(&row).await.unwrap().is_made());
    row.id
}

/// A member who has joined.
async fn joined(store: &Store, tenant: TenantId, email: &str, byte: u8, role: Role) -> Member {
    let key = acts_by(tenant, byte);
    let member = invited(tenant, &key, email, role);
    let made = store.members().insert(&member, &key, Some([byte; 32]), 100).await.unwrap();
    assert_eq!(made, Joining::Made);
    let (next, password) = (acts_by(tenant, byte + 100), Secret::new("a hash"));
    let change = Renewal { password: Some(&password), invitation: Some([byte; 32]), ..Renewal::default() };
    assert_eq!(store.members().renew(&member, &next, &change).await.unwrap(), Renewed::Done);
    store.members().get(tenant, member.id).await.unwrap().unwrap()
}

pub async fn an_invitation_is_taken_up_once_and_in_time(place: &Place) {
    let store = place.open().await;
    let acme = tenant(&store, "acme").await;
    let key = acts_by(acme, 1);
    let member = invited(acme, &key, "ada@x", Role::Owner);
    let members = store.members();
    assert_eq!(members.insert(&member, &key, Some([1; 32]), 100).await.unwrap(), Joining::Made);
    assert_eq!(members.get(acme, member.id).await.unwrap(), Some(member.clone()));
    assert_eq!(members.by_key(key.key.id).await.unwrap(), Some(member.clone()));
    let until = member.invited_until.unwrap();
    assert_eq!(members.by_invitation(&[1; 32], until).await.unwrap(), None);
    assert_eq!(members.by_invitation(&[2; 32], Timestamp::now()).await.unwrap(), None);
    assert!(members.by_invitation(&[1; 32], Timestamp::now()).await.unwrap().is_some());
    // Another one takes the first one's place.
    assert!(members.invite(acme, member.id, &[2; 32], until).await.unwrap());
    let password = Secret::new("a hash");
    let with = |hash| Renewal { password: Some(&password), invitation: Some(hash), ..Renewal::default() };
    let next = acts_by(acme, 9);
    assert_eq!(members.renew(&member, &next, &with([1; 32])).await.unwrap(), Renewed::Gone);
    assert_eq!(members.renew(&member, &next, &with([2; 32])).await.unwrap(), Renewed::Done);
    let found = members.by_email(acme, "ada@x").await.unwrap().unwrap();
    assert_eq!((found.key, found.invited_until), (next.key.id, None));
    assert!(found.joined.is_some());
    assert!(members.password(member.id).await.unwrap().is_some_and(|it| it.expose() == "a hash"));
    let again = acts_by(acme, 10);
    assert_eq!(members.renew(&found, &again, &with([2; 32])).await.unwrap(), Renewed::Gone);
    assert!(store.keys().get(again.key.id).await.unwrap().is_none(), "half a change");
    assert!(store.keys().get(key.key.id).await.unwrap().unwrap().revoked.is_some());
}

pub async fn members_are_one_for_each_address_and_as_many_as_may_be(place: &Place) {
    let store = place.open().await;
    let (acme, other) = (tenant(&store, "acme").await, tenant(&store, "other").await);
    let ada = joined(&store, acme, "ada@x", 1, Role::Owner).await;
    let insert = async |tenant, email: &str, byte, most| {
        let key = acts_by(tenant, byte);
        let member = invited(tenant, &key, email, Role::Viewer);
        let made = store.members().insert(&member, &key, None, most).await.unwrap();
        let is_there = store.keys().get(key.key.id).await.unwrap().is_some();
        assert_eq!(is_there, made == Joining::Made);
        made
    };
    assert_eq!(insert(acme, "ada@x", 2, 100).await, Joining::Taken);
    assert_eq!(insert(other, "ada@x", 3, 100).await, Joining::Made);
    assert_eq!(insert(acme, "bob@x", 4, 1).await, Joining::Full);
    assert_eq!(insert(acme, "bob@x", 5, 2).await, Joining::Made);
    // Whom a directory vouches for has one name there.
    let by = Vouched { issuer: "https://idp".to_owned(), subject: "7".to_owned() };
    let of_directory = async |byte| {
        let key = acts_by(acme, byte);
        let member =
            Member { email: None, vouched: Some(by.clone()), ..invited(acme, &key, "", Role::Viewer) };
        store.members().insert(&member, &key, None, 100).await.unwrap()
    };
    assert_eq!(of_directory(6).await, Joining::Made);
    assert_eq!(of_directory(7).await, Joining::Taken);
    assert!(store.members().by_subject(acme, &by).await.unwrap().is_some());
    assert!(store.members().by_subject(other, &by).await.unwrap().is_none());
    assert!(store.members().get(other, ada.id).await.unwrap().is_none());
    let all = store.members().list(acme, None, 100).await.unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(store.members().list(acme, Some(all[0].id), 1).await.unwrap(), all[1..2]);
    // Nobody lists or rotates what a member acts by.
    assert!(store.keys().list(acme, None, None, 100).await.unwrap().is_empty());
    assert!(!store.keys().revoke(acme, None, ada.key, Timestamp::now()).await.unwrap());
    let successor = acts_by(acme, 50);
    assert!(!store.keys().rotate(ada.key, Timestamp::now(), &successor.key, &[50; 32]).await.unwrap());
}

pub async fn the_last_owner_stays_one(place: &Place) {
    let store = place.open().await;
    let acme = tenant(&store, "acme").await;
    let ada = joined(&store, acme, "ada@x", 1, Role::Owner).await;
    // Who has not come yet owns nothing.
    let key = acts_by(acme, 3);
    let guest = invited(acme, &key, "eve@x", Role::Owner);
    store.members().insert(&guest, &key, Some([3; 32]), 100).await.unwrap();
    let members = store.members();
    let less = Renewal { role: Some(Role::Developer), ..Renewal::default() };
    let next = acts_by(acme, 20);
    assert_eq!(members.renew(&ada, &next, &less).await.unwrap(), Renewed::LastOwner);
    assert_eq!(members.remove(&ada, false, Timestamp::now()).await.unwrap(), Renewed::LastOwner);
    assert_eq!(members.remove(&guest, false, Timestamp::now()).await.unwrap(), Renewed::Done);
    // Of two that are made less at the same time, one stays.
    let bob = joined(&store, acme, "bob@x", 4, Role::Owner).await;
    let (one, two) = (acts_by(acme, 21), acts_by(acme, 22));
    let (first, second) = tokio::join!(members.renew(&ada, &one, &less), members.renew(&bob, &two, &less));
    let outcomes = [first.unwrap(), second.unwrap()];
    assert!(outcomes.contains(&Renewed::Done) && outcomes.contains(&Renewed::LastOwner), "{outcomes:?}");
    let left = members.list(acme, None, 100).await.unwrap();
    let last = left.iter().find(|member| member.role == Role::Owner).unwrap();
    assert_eq!(members.remove(last, true, Timestamp::now()).await.unwrap(), Renewed::Done);
    assert_eq!(members.remove(last, true, Timestamp::now()).await.unwrap(), Renewed::Gone);
}

pub async fn what_stands_on_a_member_ends_with_each_change(place: &Place) {
    let store = place.open().await;
    let acme = tenant(&store, "acme").await;
    let ada = joined(&store, acme, "ada@x", 1, Role::Developer).await;
    let number = store.news().number().await.unwrap();
    let next = acts_by(acme, 30);
    let change = Renewal { role: Some(Role::Viewer), ..Renewal::default() };
    assert_eq!(store.members().renew(&ada, &next, &change).await.unwrap(), Renewed::Done);
    assert!(store.keys().get(ada.key).await.unwrap().unwrap().revoked.is_some());
    assert!(store.news().number().await.unwrap() > number, "other gateways are told");
    // Who changes what was changed meanwhile changes nothing.
    let late = acts_by(acme, 31);
    assert_eq!(store.members().renew(&ada, &late, &change).await.unwrap(), Renewed::Gone);
    assert_eq!(store.members().remove(&ada, true, Timestamp::now()).await.unwrap(), Renewed::Gone);
    // A tenant that is suspended suspends its members.
    let now = Timestamp::now();
    let (from, to) = (TenantState::Active, TenantState::Suspended);
    assert!(store.tenants().settle(acme, from, to, now, None).await.unwrap());
    assert!(!store.keys().get(next.key.id).await.unwrap().unwrap().is_live(now));
    // And takes them with it when it goes for good.
    assert!(store.tenants().settle(acme, to, TenantState::Deleted, now, Some(now)).await.unwrap());
    assert!(store.tenants().remove(acme, now).await.unwrap());
    assert!(store.members().get(acme, ada.id).await.unwrap().is_none());
}
