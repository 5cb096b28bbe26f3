"""The two published settings of VIPaint, as their code ran them."""
