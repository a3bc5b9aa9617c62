
/** What has come of going away to a provider. */
export interface Returned {
  readonly provider: string;
  /** One more way in for who was signed in. */
  readonly linked?: boolean;
  /** `denied` by the person, `failed` or `unavailable` at the provider (the app's log says why), else the app's code:
   * `conflict` where the identity or its address is another user's, `forbidden` where nobody signs up. */
  readonly error?: string;
  readonly message?: string;
  /** A second factor is asked for: `mfa.verify` signs in. */
  readonly mfa?: SecondFactor;
}

export interface Identity {
  /** A name in the manifest's `auth.providers`, or "custom". */
  readonly provider: string;
  readonly created_at: string;
}

export interface Others {
  /** What has come of `signInWith` or `link` when the page is back; null where it was not away. Never rejects. */
  readonly returned: Promise<Returned | null>;
  /** Leaves for the provider and comes back to this page, or to `redirect`, signed in. Somebody anonymous becomes that
   * account, with the same id and rows, unless there is one already. */
  signInWith(provider: string, options?: Leading): Promise<never>;
  /** The same, as one more way in for who is signed in; that user must have signed in a moment ago. */
  link(provider: string, options?: Leading): Promise<never>;
  identities(): Promise<Identity[]>;
  /** Refused for the only way in. */
  unlink(provider: string): Promise<void>;
  /** Signs in with a token that the app's own server has signed. */
  custom(token: string): Promise<User>;
}
