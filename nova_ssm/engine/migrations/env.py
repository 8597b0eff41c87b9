#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""How alembic reaches the journal's database."""

from alembic import context
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema

engine = sa.create_engine(
    context.config.get_main_option('sqlalchemy.url', ''),
    poolclass=sa.NullPool)
with engine.connect() as connection:
    # A table of its own: the database is Nova's, and so is alembic_version.
    context.configure(connection=connection,
                      target_metadata=schema.metadata,
                      version_table=database.VERSION_TABLE,
                      render_as_batch=engine.dialect.name == 'sqlite')
    with context.begin_transaction():
        context.run_migrations()
