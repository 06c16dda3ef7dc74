"""Measuring: data sets, methods of this and other libraries, and their recall and speed side by side.

Nobody imports this at ``import nearest``; ``benchmarks/run.py`` does, and `nearest compare` will.

==============  ======================================================================================================
`data`          sets of vectors with queries: files of real ones, or made from a seed; kept as files that workers map
`truth`         the true neighbors in float64, and recall by distance against them
`adapters`      the methods, one file a library; each says which parameters are worth a try, and runs them
`worker`        one method in a process of its own: builds, answers, and is timed, turn by turn
`runner`        sends the turns round, A B A B …, checks the answers, and sums up
`sweep`         many parameter sets, tried coarsely; then how fast the best of each are at exactly a recall
`builds`        what other libraries built, kept between runs
`lists`         what the definitions about inverted lists share
`machine`       what it ran on: CPU, kernels, versions, commit, and who else was using the machine
`record`        what came out, as JSON
`report`        the same for people: a table and a plot of recall and speed
==============  ======================================================================================================
"""
