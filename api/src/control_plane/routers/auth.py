"""Signing in, staying signed in, signing out, and one's own password."""

from typing import Annotated, cast

from fastapi import Depends, Form, Request, Response

from control_plane.dependencies import CurrentPrincipal, LaterWork, ThePlatform, Work
from control_plane.middleware.rbac import guard
from control_plane.models.audit import Action, AuditDraft
from control_plane.models.auth import Me, PasswordChange, RefreshRequest, SignInForm, Tokens
from control_plane.permissions import Permission
from control_plane.routes import guarded_router
from control_plane.services.auth_service import RefreshReused, SignedIn, session_id

router = guarded_router(prefix="/api/v1/auth", tags=["auth"])


async def _draft(request: Request) -> AuditDraft:
    return cast(AuditDraft, request.state.audit)


Draft = Annotated[AuditDraft, Depends(_draft)]


@router.post(
    "/token",
    responses={401: {"description": "The name or the password is wrong"}},
    dependencies=[guard(Permission.PUBLIC, Action.SIGN_IN)],
)
async def sign_in(
    form: Annotated[SignInForm, Form()], platform: ThePlatform, draft: Draft, work: LaterWork, response: Response
) -> Tokens:
    """Sign in with a name and a password."""
    draft.user = await platform.auth.known_name(form.username)
    accepted = await platform.auth.check_password(form.username, form.password, draft.address)
    await work.begin()
    return _answer(await platform.auth.sign_in(work.connection, accepted, draft.address), draft, response)


@router.post(
    "/refresh",
    responses={401: {"description": "The refresh token is not good, or not any more"}},
    dependencies=[guard(Permission.PUBLIC, Action.REFRESH)],
)
async def refresh(
    body: RefreshRequest, platform: ThePlatform, draft: Draft, work: LaterWork, response: Response
) -> Tokens:
    """Get new tokens for a refresh token. It is good once: whoever uses it again ends the session."""
    await work.begin()
    try:
        signed_in = await platform.auth.refresh(work.connection, body.refresh_token)
    except RefreshReused as reused:
        await work.abandon()
        await platform.auth.end_reused(reused.session)
        raise
    return _answer(signed_in, draft, response)


@router.post("/logout", status_code=204, dependencies=[guard(Permission.SELF, Action.SIGN_OUT)])
async def sign_out(principal: CurrentPrincipal, platform: ThePlatform, work: Work) -> None:
    """End the session: its access token and its refresh token are good no more."""
    await platform.auth.sign_out(work.connection, principal)


@router.get("/me", dependencies=[guard(Permission.SELF, Action.ME)])
async def me(principal: CurrentPrincipal, platform: ThePlatform) -> Me:
    """Who is signed in, and what they may do."""
    return Me(
        id=principal.id,
        name=principal.name,
        kind=principal.kind,
        roles=sorted(principal.roles),
        permissions=sorted(principal.permissions),
        pipelines=None if principal.pipelines is None else sorted(principal.pipelines),
        must_change_password=principal.must_change_password,
        at=platform.auth.clock(),
    )


@router.post("/password", status_code=204, dependencies=[guard(Permission.SELF, Action.CHANGE_PASSWORD)])
async def change_password(
    body: PasswordChange, principal: CurrentPrincipal, platform: ThePlatform, draft: Draft, work: LaterWork
) -> None:
    """Change one's own password. One's other sessions end; this one goes on."""
    session_id(principal)
    new = await platform.auth.check_change(principal, body.current_password, body.new_password, draft.address)
    await work.begin()
    await platform.auth.change_password(work.connection, principal, new)


def _answer(signed_in: SignedIn, draft: AuditDraft, response: Response) -> Tokens:
    draft.principal = signed_in.principal
    response.headers["Cache-Control"] = "no-store"
    return Tokens(
        access_token=signed_in.access_token,
        expires_in=signed_in.expires_in_s,
        refresh_token=signed_in.refresh_token,
        must_change_password=signed_in.principal.must_change_password,
    )
