"""Stand-in for Cytomine's repository: the database's schema, made and brought up to date at its start.

Each migration runs once, in its own transaction; what ran is in ``databasechangelog``. As upstream's, who migrates holds the
row of ``databasechangeloglock``, and one that is killed keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .database import Connection, one

EXTENSIONS = ("CREATE EXTENSION IF NOT EXISTS postgis", "CREATE EXTENSION IF NOT EXISTS ltree")

USERS = """
CREATE SEQUENCE hibernate_sequence START 1000;
CREATE TABLE sec_user (
    id bigserial PRIMARY KEY, username text NOT NULL UNIQUE, name text, firstname text, lastname text,
    email text, language text, reference text UNIQUE, public_key text UNIQUE, private_key text, enabled boolean,
    is_developer boolean NOT NULL DEFAULT false, origin text,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE sec_role (id bigint PRIMARY KEY, authority text NOT NULL UNIQUE, created timestamptz NOT NULL DEFAULT now());
INSERT INTO sec_role (id, authority) VALUES
    (1, 'ROLE_USER'), (2, 'ROLE_ADMIN'), (3, 'ROLE_SUPER_ADMIN'), (4, 'ROLE_GUEST');
CREATE TABLE sec_user_sec_role (
    id bigserial PRIMARY KEY, sec_user_id bigint NOT NULL REFERENCES sec_user ON DELETE CASCADE,
    sec_role_id bigint NOT NULL REFERENCES sec_role,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, UNIQUE (sec_user_id, sec_role_id));
CREATE TABLE storage (
    id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES sec_user, name text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
"""

PROJECTS = """
CREATE TABLE ontology (
    id bigserial PRIMARY KEY, name text NOT NULL CHECK (name <> ''), user_id bigint NOT NULL REFERENCES sec_user,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE term (
    id bigserial PRIMARY KEY, name text NOT NULL, color text NOT NULL, comment text,
    ontology_id bigint NOT NULL REFERENCES ontology,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE relation_term (
    id bigserial PRIMARY KEY, term1_id bigint NOT NULL REFERENCES term, term2_id bigint NOT NULL REFERENCES term,
    relation_id bigint NOT NULL DEFAULT 1,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE project (
    id bigint PRIMARY KEY, name text NOT NULL UNIQUE, ontology_id bigint REFERENCES ontology,
    creator_id bigint NOT NULL REFERENCES sec_user, blind_mode boolean NOT NULL DEFAULT false,
    hide_admins_layers boolean NOT NULL DEFAULT false, hide_users_layers boolean NOT NULL DEFAULT false,
    images_downloadable boolean NOT NULL DEFAULT false, is_read_only boolean NOT NULL DEFAULT false,
    is_closed boolean NOT NULL DEFAULT false, is_restricted boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE project_member (
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE, user_id bigint NOT NULL REFERENCES sec_user,
    manager boolean NOT NULL DEFAULT false, representative boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (project_id, user_id));
"""

IMAGES = """
CREATE TABLE uploaded_file (
    id bigserial PRIMARY KEY, user_id bigint NOT NULL REFERENCES sec_user, storage_id bigint NOT NULL REFERENCES storage,
    parent_id bigint REFERENCES uploaded_file, filename text NOT NULL, original_filename text NOT NULL,
    ext text NOT NULL DEFAULT '', content_type text NOT NULL DEFAULT '', size bigint NOT NULL, status int NOT NULL,
    projects bigint[] NOT NULL DEFAULT '{}',
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE abstract_image (
    id bigint PRIMARY KEY, uploaded_file_id bigint NOT NULL REFERENCES uploaded_file, original_filename text NOT NULL,
    width int NOT NULL, height int NOT NULL, depth int NOT NULL DEFAULT 1, duration int NOT NULL DEFAULT 1,
    channels int NOT NULL DEFAULT 1, extrinsic_channels int, physical_size_x float8, physical_size_y float8,
    physical_size_z float8, fps float8, magnification int, bit_per_sample int, sample_per_pixel int, colorspace text,
    tile_size int NOT NULL DEFAULT 256,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE abstract_slice (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES abstract_image ON DELETE CASCADE,
    uploaded_file_id bigint NOT NULL REFERENCES uploaded_file, channel int NOT NULL DEFAULT 0,
    z_stack int NOT NULL DEFAULT 0, "time" int NOT NULL DEFAULT 0, channel_name text,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE image_instance (
    id bigint PRIMARY KEY, base_image_id bigint NOT NULL REFERENCES abstract_image,
    project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE, user_id bigint NOT NULL REFERENCES sec_user,
    instance_filename text, magnification int, physical_size_x float8, physical_size_y float8, physical_size_z float8,
    fps float8, review_start timestamptz, review_stop timestamptz, review_user_id bigint REFERENCES sec_user,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now(),
    UNIQUE (base_image_id, project_id));
CREATE TABLE slice_instance (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES image_instance ON DELETE CASCADE,
    base_slice_id bigint NOT NULL REFERENCES abstract_slice,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
"""

ANNOTATIONS = """
CREATE TABLE user_annotation (
    id bigint PRIMARY KEY, image_id bigint NOT NULL REFERENCES image_instance ON DELETE CASCADE,
    slice_id bigint NOT NULL REFERENCES slice_instance, project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES sec_user, location geometry NOT NULL,
    geometry_compression float8 NOT NULL DEFAULT 0, reviewed boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE INDEX user_annotation_location ON user_annotation USING gist (location);
CREATE INDEX user_annotation_image ON user_annotation (image_id, created);
CREATE INDEX user_annotation_project ON user_annotation (project_id, created);
CREATE TABLE annotation_term (
    id bigint PRIMARY KEY, annotation_id bigint NOT NULL REFERENCES user_annotation ON DELETE CASCADE,
    term_id bigint NOT NULL REFERENCES term, user_id bigint NOT NULL REFERENCES sec_user,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now(),
    UNIQUE (annotation_id, term_id, user_id));
CREATE TABLE reviewed_annotation (
    id bigint PRIMARY KEY, parent_id bigint NOT NULL, image_id bigint NOT NULL REFERENCES image_instance ON DELETE CASCADE,
    slice_id bigint NOT NULL REFERENCES slice_instance, project_id bigint NOT NULL REFERENCES project ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES sec_user, review_user_id bigint NOT NULL REFERENCES sec_user,
    location geometry NOT NULL, geometry_compression float8 NOT NULL DEFAULT 0, terms bigint[] NOT NULL DEFAULT '{}',
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
"""

METADATA = """
CREATE TABLE property (
    id bigint PRIMARY KEY, domain_class_name text NOT NULL, domain_ident bigint NOT NULL, key text NOT NULL,
    value text NOT NULL, created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE INDEX property_domain ON property (domain_ident, domain_class_name);
CREATE TABLE description (
    id bigint PRIMARY KEY, domain_class_name text NOT NULL, domain_ident bigint NOT NULL, data text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now(),
    UNIQUE (domain_ident, domain_class_name));
CREATE TABLE attached_file (
    id bigint PRIMARY KEY, domain_class_name text NOT NULL, domain_ident bigint NOT NULL, filename text NOT NULL,
    key text, data bytea NOT NULL,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz NOT NULL DEFAULT now());
CREATE TABLE tag (
    id bigserial PRIMARY KEY, name text NOT NULL CHECK (name <> ''), user_id bigint NOT NULL REFERENCES sec_user,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
CREATE TABLE tag_domain_association (
    id bigserial PRIMARY KEY, tag_id bigint NOT NULL REFERENCES tag, domain_class_name text NOT NULL,
    domain_ident bigint NOT NULL,
    created timestamptz NOT NULL DEFAULT now(), updated timestamptz, deleted timestamptz);
"""

# Upstream keeps reading and managing as two entries: one taken away leaves the other.
READERS = "ALTER TABLE project_member ADD reader boolean NOT NULL DEFAULT true"

# NULL for what cannot be read: an error would end the caller's transaction.
GEOMETRIES = """
CREATE FUNCTION read_wkt(text) RETURNS geometry LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RETURN ST_GeomFromText($1); EXCEPTION WHEN OTHERS THEN RETURN NULL; END $$;
"""

# Upstream has this step too: on a database whose superuser is named postgres it fails, and with it the start.
SUPERUSER = "DROP USER IF EXISTS postgres"

MIGRATIONS = (
    ("users", USERS),
    ("superuser", SUPERUSER),
    ("projects", PROJECTS),
    ("images", IMAGES),
    ("annotations", ANNOTATIONS),
    ("metadata", METADATA),
    ("geometries", GEOMETRIES),
    ("readers", READERS),
)

# Two that begin at the same moment may both find no table.
LOCK = (
    "SELECT pg_advisory_lock(7070)",
    """CREATE TABLE IF NOT EXISTS databasechangeloglock (
           id int PRIMARY KEY, locked boolean NOT NULL, lockgranted timestamp, lockedby varchar(255))""",
    "INSERT INTO databasechangeloglock VALUES (1, false) ON CONFLICT DO NOTHING",
    "SELECT pg_advisory_unlock(7070)",
)
TAKE_LOCK = """UPDATE databasechangeloglock SET locked = true, lockgranted = now(), lockedby = 'stand-in'
               WHERE id = 1 AND NOT locked RETURNING id"""
GIVE_LOCK = (
    "UPDATE databasechangeloglock SET locked = false, lockgranted = NULL, lockedby = NULL WHERE id = 1"
)
WAITS_FOR_LOCK = "waiting for changelog lock"
LOCK_SECONDS = 2.0


async def migrate(
    conn: Connection, say: Callable[[str], None], before: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Bring the schema up to date; ``say`` gets one line for each step that ran, ``before`` holds up each."""
    await conn.set_autocommit(True)
    for extension in EXTENSIONS:
        await conn.execute(extension)
    for sql in LOCK:
        await conn.execute(sql)
    while not await one(conn, TAKE_LOCK):
        say(WAITS_FOR_LOCK)
        await asyncio.sleep(LOCK_SECONDS)
    try:
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS databasechangelog (id text PRIMARY KEY, at timestamptz DEFAULT now())"
        )
        for name, sql in MIGRATIONS:
            if await one(conn, "SELECT 1 FROM databasechangelog WHERE id = %s", name):
                continue
            if before:
                await before()
            async with conn.transaction():
                await conn.execute(sql)
                await conn.execute("INSERT INTO databasechangelog (id) VALUES (%s)", (name,))
            say(f"migration {name} ran")
    finally:
        await conn.execute(GIVE_LOCK)


async def current(conn: Connection) -> bool:
    """Whether every migration ran."""
    if not await one(conn, "SELECT 1 WHERE to_regclass('databasechangelog') IS NOT NULL"):
        return False
    row = await one(
        conn, "SELECT count(*) AS n FROM databasechangelog WHERE id = ANY(%s)", [n for n, _ in MIGRATIONS]
    )
    return bool(row and row["n"] == len(MIGRATIONS))


async def image_server(conn: Connection, public: str, private: str, email: str) -> None:
    """Write the image server's keys into its user, as the repository does at every start."""
    await conn.execute(
        """INSERT INTO sec_user (username, name, email, language, public_key, private_key, enabled)
           VALUES ('ImageServer1', 'Image Server', NULLIF(%s, ''), 'ENGLISH', NULLIF(%s, ''), %s, true)
           ON CONFLICT (username) DO UPDATE SET public_key = EXCLUDED.public_key,
           private_key = EXCLUDED.private_key""",
        (email, public, private),
    )
    await conn.execute(
        """INSERT INTO sec_user_sec_role (sec_user_id, sec_role_id)
           SELECT u.id, r FROM sec_user u, unnest(ARRAY[1, 2, 3]) r WHERE u.username = 'ImageServer1'
           ON CONFLICT DO NOTHING"""
    )
    await conn.execute(
        """INSERT INTO storage (user_id, name) SELECT id, 'ImageServer1 storage' FROM sec_user
           WHERE username = 'ImageServer1' AND NOT EXISTS (SELECT 1 FROM storage s WHERE s.user_id = sec_user.id)"""
    )
