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

"""How the page of a flow looks: light and dark, wide, narrow, and on paper.

The colours are those of the graph, so that one state is one colour.
"""

from nova_ssm.engine import colors
from nova_ssm.engine import progress
from nova_ssm.engine import states

#: The kinds of bars.
DONE, READ, FAILED, UNDONE, OPEN, OWNER, NOBODY = (
    'done', 'read', 'failed', 'undone', 'open', 'owner', 'nobody')

_COLORS = {
    DONE: progress.DONE, READ: progress.DONE, FAILED: progress.FAILED,
    UNDONE: progress.REVERTED, OPEN: progress.RUNNING,
    OWNER: progress.RUNNING, NOBODY: progress.SKIPPED,
    states.SUCCESS: progress.DONE, states.REVERTED: progress.REVERTED,
    states.FAILURE: progress.FAILED, states.KILLED: progress.NOT_UNDONE,
    states.RUNNING: progress.RUNNING, states.PENDING: progress.SKIPPED}


def sheet() -> str:
    """The style sheet."""
    return _SHEET + ''.join('.%s { --color: %s; }\n' % (
        name, colors.picture(state)) for name, state in _COLORS.items())


_SHEET = '''
:root { color-scheme: light dark; --ground: #8881; --edge: #8885; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 76rem; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; }
h1 { font-size: 1.6rem; margin: 0; display: flex; flex-wrap: wrap;
  align-items: center; gap: .3em .6em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; } .dim { opacity: .75; }
.state { font-size: .9rem; font-weight: 600; padding: .1em .7em;
  border-radius: 1em; border: 1.5px solid var(--color, currentColor);
  background: color-mix(in srgb, var(--color) 16%, transparent); }
.facts { display: grid; gap: .7rem 2rem; margin: 1.2rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22.5rem), 1fr)); }
.facts dt { font-size: .8rem; opacity: .75; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.failure { border-left: 4px solid var(--color); background: var(--ground);
  border-radius: 0 6px 6px 0; padding: .7rem 1rem; margin: .7rem 0; }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .4rem 0 0; }
summary { cursor: pointer; width: fit-content; padding: .2rem 0; }
summary:focus-visible, .scroll:focus-visible {
  outline: 2px solid currentColor; outline-offset: 3px; }
.timeline { list-style: none; margin: 0; padding: 0; }
.timeline li { display: grid; gap: 0 1rem; align-items: center;
  grid-template-columns: minmax(8rem, 17rem) 7rem 1fr; padding: .12rem 0; }
.timeline li:hover { background: var(--ground); }
.name { overflow-wrap: anywhere; } .failed .name { font-weight: 600; }
.took { text-align: right; font-variant-numeric: tabular-nums;
  font-size: .9rem; }
.bars { position: relative; height: 1rem; border-radius: 3px;
  background: var(--ground); overflow: hidden; }
.axis .bars { background: none; display: flex;
  justify-content: space-between; font-size: .8rem; height: auto;
  opacity: .75; }
.bar { background: var(--color); border-radius: 3px; }
.bars .bar { position: absolute; top: 0; bottom: 0; }
.bar.read { opacity: .5; } .bar.nobody { opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem;
  font-size: .9rem; margin-top: .8rem; }
.legend .bar { display: inline-block; width: .9em; height: .9em;
  margin-right: .4em; vertical-align: -.08em; }
.scroll { overflow-x: auto; max-width: 100%; }
.graph svg { max-width: none !important; display: block; margin: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem 1rem .35rem 0;
  border-bottom: 1px solid var(--edge); vertical-align: top; }
th { font-size: .8rem; font-weight: 400; opacity: .75; }
@media (max-width: 44rem) {
  .timeline li { grid-template-columns: 1fr auto; padding: .3rem 0; }
  .bars { grid-column: 1 / -1; }
  .facts { gap: .35rem; }
}
@media print { .bar, .state, .failure { print-color-adjust: exact; } }
'''
