// A stand-in for LS Login in development and tests; never for production.
// oidc-provider, configured to speak like LS Login.
import Provider from 'oidc-provider';
import * as pages from './pages.js';
import { account, bySub } from './users.js';

// LS Login's scopes; those without claims here are accepted and give nothing.
const SCOPES = [
  'openid', 'profile', 'email', 'address', 'phone', 'offline_access', 'country', 'eduperson_principal_name',
  'eduperson_assurance', 'eduperson_entitlement', 'voperson_external_affiliation',
  'voperson_current_external_affiliation', 'ga4gh_passport_v1', 'eduperson_orcid', 'eduperson_unique_id',
  'schac_home_organization', 'eduperson_scoped_affiliation', 'authenticating_entity', 'ssh_public_key',
  'crypt4ghPublicKeys', 'gpgPublicKeys',
];

function client({ client_id, client_secret, redirect_uris, post_logout_redirect_uris = [], name, refresh = false }) {
  return {
    client_id,
    client_secret,
    client_name: name ?? client_id,
    redirect_uris,
    post_logout_redirect_uris,
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    // Registered per client at LS Login, where the token endpoint takes both ways.
    token_endpoint_auth_method: 'client_secret_basic',
    refresh,
  };
}

export function createProvider({ issuer, clients, store, keys, broker, accessTokenSeconds }) {
  const provider = new Provider(issuer, {
    adapter: store.Adapter,
    clients: clients.map(client),
    extraClientMetadata: { properties: ['refresh'] },
    jwks: { keys: [keys.tokens] },
    cookies: { keys: [keys.cookies] },
    routes: {
      authorization: '/authorize',
      token: '/token',
      userinfo: '/userinfo',
      jwks: '/jwk',
      introspection: '/introspect',
      revocation: '/revoke',
      end_session: '/endsession',
    },
    responseTypes: ['code'],
    pkce: { required: () => true },
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'none'],
    scopes: SCOPES,
    claims: {
      openid: ['sub'],
      profile: ['name', 'preferred_username', 'given_name', 'family_name'],
      email: ['email', 'email_verified'],
      eduperson_entitlement: ['eduperson_entitlement'],
      ga4gh_passport_v1: ['ga4gh_passport_v1'],
    },
    extraParams: ['username_hint'],
    features: {
      devInteractions: { enabled: false },
      pushedAuthorizationRequests: { enabled: false },
      dPoP: { enabled: false },
      resourceIndicators: { enabled: false },
      introspection: { enabled: true, allowedPolicy: (ctx, caller, token) => token.clientId === caller.clientId },
      revocation: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource(ctx, form) {
          ctx.body = pages.logout(form, Boolean(ctx.oidc.params.id_token_hint));
        },
        postLogoutSuccessSource(ctx) {
          ctx.body = pages.loggedOut();
        },
      },
    },
    findAccount(ctx, sub) {
      const user = bySub(sub);
      return user && account(user, broker);
    },
    // No consent page: LS Login asks once, and the choice of a test user is consent enough.
    async loadExistingGrant(ctx) {
      const { Grant } = ctx.oidc.provider;
      const { clientId } = ctx.oidc.client;
      const { accountId } = ctx.oidc.session;
      const known = ctx.oidc.session.grantIdFor(clientId);
      const grant = (known && await Grant.find(known)) || new Grant({ accountId, clientId });
      grant.addOIDCScope(ctx.oidc.params.scope);
      await grant.save();
      return grant;
    },
    async issueRefreshToken(ctx, forClient, code) {
      return forClient.grantTypeAllowed('refresh_token') && (forClient.refresh || code.scopes.has('offline_access'));
    },
    rotateRefreshToken: true,
    expiresWithSession: () => false,
    interactions: { url: (ctx, interaction) => `/oidc/interaction/${interaction.uid}` },
    ttl: {
      AccessToken: accessTokenSeconds,
      AuthorizationCode: 60,
      Grant: 14 * 86400,
      IdToken: 3600,
      Interaction: 3600,
      RefreshToken: 14 * 86400,
      Session: 14 * 86400,
    },
    renderError(ctx, out) {
      ctx.type = 'html';
      ctx.body = pages.failure('LS Login cannot go on', `${out.error}: ${out.error_description ?? 'no details'}`);
    },
  });
  // Behind an ingress: the front server says which scheme the browser used.
  provider.proxy = true;
  provider.on('server_error', (ctx, error) => console.error(error));
  return provider;
}
