"""Several processes that are one server: each is a node, with a queue of its own."""

from elemta.nodes.cluster import Cluster as Cluster
from elemta.nodes.merging import in_order as in_order
from elemta.nodes.merging import sum_stats as sum_stats
from elemta.nodes.place import LIFELINE as LIFELINE
from elemta.nodes.place import Place as Place
from elemta.nodes.place import folders as folders
from elemta.nodes.place import inherited as inherited
from elemta.nodes.place import places as places
from elemta.nodes.place import share as share
from elemta.nodes.processes import run as run
