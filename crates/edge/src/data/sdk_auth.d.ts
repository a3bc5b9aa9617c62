
/** What is asked of who has shown a right first factor, where the account has a second: the error's `mfa`. */
export interface SecondFactor {
  readonly ticket: string;
  readonly factors: readonly ("totp" | "recovery_code" | "passkey")[];
  /** Seconds. */
  readonly expires_in: number;
}

/** One of them, or none a moment after signing in (with the second factor, where there is one). */
export interface Proof {
  /** The password, where there is no second factor. */
  current?: string;
  /** What the authenticator shows. */
  code?: string;
  recoveryCode?: string;
}

export interface Factor {
  readonly id: string;
  readonly kind: "totp";
  readonly name: string | null;
  readonly created_at: string;
  readonly used_at: string | null;
}

export interface Mfa {
  /** Signs in: `login` and its like have thrown an error with `mfa`, whose ticket is taken by itself. */
  verify(shown: { code: string; ticket?: string } | { recoveryCode: string; ticket?: string }): Promise<User>;
  /** `open` is false where the app requires a second factor that this session has not shown. */
  list(): Promise<{
    mode: "off" | "optional" | "required";
    open: boolean;
    factors: Factor[];
    recovery_codes: number;
  }>;
  /** Begins to set up an authenticator: show `uri` as a QR code, or `secret`; then `activate` with its first code. */
  enrol(options?: { name?: string; current?: string }): Promise<{ id: string; secret: string; uri: string; expires_in: number }>;
  /** Sets it up. All other sessions end. Gives recovery codes: show them, they are shown once. */
  activate(code: string): Promise<string[]>;
  /** New recovery codes; those from before are worth nothing. */
  renewCodes(proof?: Proof): Promise<string[]>;
  /** Takes it away, with the recovery codes. */
  remove(id: string, proof?: Proof): Promise<void>;
}

export interface PasskeyInfo {
  readonly id: string;
  readonly name: string | null;
  /** The host of the app where it works. */
  readonly host: string;
  readonly backed_up: boolean;
  readonly created_at: string;
  readonly used_at: string | null;
}

export interface Passkeys {
  /** Whether this browser can. */
  isSupported(): boolean;
  /** Makes one for who is signed in. The browser asks; it rejects with a DOMException where the user does not want to. */
  register(options?: { name?: string } & Proof): Promise<PasskeyInfo>;
  /** Signs in by one, whoever it is. Shown with a finger, a face or a PIN it is two factors at once. */
  signIn(options?: { mediation?: "conditional" | "optional" | "required" | "silent"; signal?: AbortSignal }): Promise<User>;
  list(): Promise<PasskeyInfo[]>;
  rename(id: string, name: string): Promise<void>;
  remove(id: string, proof?: Proof): Promise<void>;
}
