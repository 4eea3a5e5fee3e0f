#!/bin/sh
# From nothing to the light curve of an object of your topic: sh ten_minutes.sh TOPIC [FOLDER]
#
# Kafka is where FINK_DASK_BOOTSTRAP_SERVERS says, or the credentials file of fink-client. It may be run again: what is
# there already is not made or fetched again.
set -eu
if [ $# -lt 1 ]; then
    echo "usage: sh ten_minutes.sh TOPIC [FOLDER]" >&2
    exit 2
fi
topic=$1
# Beside this script, in a clone, or else wherever pip finds it.
package=$(cd "$(dirname "$0")/.." && pwd)
[ -f "$package/pyproject.toml" ] || package=fink-dask
mkdir -p "${2:-ten-minutes}"
cd "${2:-ten-minutes}"

echo "== install"
[ -x env/bin/python ] || "${PYTHON:-python3}" -m venv env
. env/bin/activate
python -m pip install --quiet "$package[dataframe,notebook]"
fink-dask --version

echo "== demo"
fink-dask demo --alerts 2000

echo "== your topic"
fink-dask transfer --topic "$topic" --outdir alerts --partitionby time --dashboard-address 127.0.0.1:0
fink-dask verify alerts

echo "== notebook"
[ -e light_curve.ipynb ] || fink-dask example light-curve
FINK_DASK_TOPIC=$topic jupyter execute --inplace light_curve.ipynb

echo "== report"
fink-dask report alerts

echo "open $PWD/light_curve.ipynb with Jupyter: its last cell is a light curve; and $PWD/report.html in a browser"
